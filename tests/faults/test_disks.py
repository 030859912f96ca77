"""A disk that is full or refuses: one message, nothing lost; predictions go on where they were."""

import errno
import json
import os
import resource
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from jaxtune import predict
from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import Rows
from jaxtune.frozen.store import ActivationCache
from jaxtune.io.atomic import replace_folder, write_atomic
from jaxtune.io.disk import cause_of, explained
from jaxtune.models.weights import open_weights
from jaxtune.run import predict_file
from jaxtune.run.checkpoint import Checkpoints
from jaxtune.run.cli import run_command
from jaxtune.run.packed import Packed, compact
from jaxtune.run.progress import Progress
from jaxtune.training.state import init_state


@pytest.fixture
def small_files():
    """No file may be larger than 20 kB, as under `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_is_too_large_leaves_the_old_one(tmp_path, small_files):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(UserError, match=r"a.txt cannot be written to: File too large. Free space"):
        write_atomic(path, b"x" * 50_000)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_too_large_leaves_the_old_one(tmp_path, small_files):
    """Whoever writes into it: the errors of libraries are not the system's."""

    def fill(fresh):
        save_file({"a": np.zeros(50_000, np.uint8)}, fresh / "model.safetensors")

    replace_folder(tmp_path / "model", lambda fresh: (fresh / "a").touch())
    with pytest.raises(UserError, match="model cannot be written to: File too large"):
        replace_folder(tmp_path / "model", fill)
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "a"]


def test_a_checkpoint_that_is_too_large_is_one_message(tmp_path, small_files):
    """Where saving waits for it too: closing the folder says no more."""
    params = {"a": jnp.ones((100, 100))}
    state = init_state(params, optax.sgd(0.1), jax.random.key(0))
    with (
        pytest.raises(UserError, match=r"c/0 cannot be written to: File too large. Free space"),
        Checkpoints(tmp_path / "c") as checkpoints,
    ):
        checkpoints.save(state, Progress())
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps == ()


def test_the_kept_states_reserve_their_space(tmp_path, small_files):
    sizes = np.array([30_000])
    with pytest.raises(UserError, match=r"120.0 kB in a file in .*: File too large"):
        ActivationCache(sizes, (1,), np.float32, 0, tmp_path)


def test_a_full_disk_is_known_by_whatever_raised_it():
    inner = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert cause_of(inner) == errno.ENOSPC
    assert cause_of(ValueError("OUT_OF_RANGE: [OS error 28: No space left on device]")) == 28
    outer = RuntimeError("the save failed")
    outer.__cause__ = inner
    assert cause_of(outer) == errno.ENOSPC
    with pytest.raises(ValueError, match="of another kind"), explained(Path("a")):
        raise ValueError("of another kind")


def test_links_stay_links(tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    for name, write in (
        ("a.txt", lambda path: write_atomic(path, "new")),
        ("model", lambda path: replace_folder(path, lambda fresh: (fresh / "a").touch())),
    ):
        (tmp_path / name).symlink_to(far / name)
        for _ in range(2):
            write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
    assert (far / "a.txt").read_text() == "new"
    assert sorted(p.name for p in far.rglob("*")) == ["a", "a.txt", "model"]


def test_a_weight_file_that_is_cut_while_it_is_read(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(100_000, np.float32)}, file)
    weights = open_weights(tmp_path)
    os.truncate(file, 5_000)
    with pytest.raises(UserError, match=r"model.safetensors was changed while it was read"):
        weights.read("a")


def test_no_memory_is_one_message(capsys):
    def greedy(argv):
        raise MemoryError

    assert run_command(greedy, []) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: out of memory")
    assert told.count("\n") == 1


def test_rows_are_kept_as_they_are():
    rows = [("a", "ü\n"), ("", "\ud83d"), ("日本", "x")]
    assert [*Packed(rows)] == rows
    assert compact(Rows([["a", "list"]], None)).inputs == [["a", "list"]]


@pytest.fixture
def job(tmp_path, tiny_weights, monkeypatch):
    """A function that predicts 50 texts, 8 at a time, and gives the output's path."""
    monkeypatch.setattr(predict_file, "CHUNK", 8)
    rng = np.random.default_rng(0)
    words = ["good", "bad", "film", "the", "cat"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(50)]
    (tmp_path / "new.txt").write_text("\n".join(texts) + "\n")
    model = tiny_weights("classification", "bert", 1)

    def run(name="out.jsonl", *more):
        output = tmp_path / name
        where = [f"--model={model}", f"--input={tmp_path / 'new.txt'}", f"--output={output}"]
        predict.main([*where, "--batch_size=4", *more])
        return output

    return run


def partials(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".partial")]


class EndedError(Exception):
    """The process was ended."""


def ended_after(monkeypatch, count):
    """Predictions that end when so many chunks are done."""
    outputs_in, done = predict_file.predictions.outputs_in, []

    def stop(*arguments):
        done.append(0)
        if len(done) > count:
            raise EndedError
        return outputs_in(*arguments)

    monkeypatch.setattr(predict_file.predictions, "outputs_in", stop)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_predictions_go_on_where_they_were(job, tmp_path, monkeypatch, capsys, suffix):
    whole = job(f"whole{suffix}").read_bytes()
    with monkeypatch.context() as patch:
        ended_after(patch, 3)
        with pytest.raises(EndedError):
            job(f"out{suffix}")
    (partial,) = partials(tmp_path)
    assert len(partial.read_text().splitlines()) == 24
    with partial.open("a") as stream:
        stream.write('{"label": "cut of')
    assert not (tmp_path / f"out{suffix}").exists()
    capsys.readouterr()
    assert job(f"out{suffix}").read_bytes() == whole
    assert "50 predictions" in (shown := capsys.readouterr().out)
    assert "24 of them by an earlier start" in shown
    assert not partials(tmp_path)
    if suffix == ".jsonl":
        assert len(whole.splitlines()) == 50
        assert json.loads(whole.splitlines()[0]).keys() == {"row", "label", "probabilities"}


def test_the_likeliest_class_alone_is_written(job, monkeypatch):
    whole, best = job("whole.jsonl"), job("best.jsonl", "--top_k=1")
    pairs = zip(*(file.read_text().splitlines() for file in (whole, best)), strict=True)
    for one, other in ((json.loads(line) for line in pair) for pair in pairs):
        assert other["probabilities"] == {one["label"]: one["probabilities"][one["label"]]}
        assert other["label"] == one["label"]
    with pytest.raises(UserError, match="--top_k=0: expected at least 1"):
        job("best.jsonl", "--top_k=0")


def test_rows_in_work_are_fewer_where_classes_are_many(monkeypatch):
    def chunk(count):
        names = tuple(map(str, range(count)))
        return predict_file._chunk_of(
            SimpleNamespace(pretrained=SimpleNamespace(class_names=names))
        )

    assert [chunk(n) for n in (0, 2, 1024, 2048, 10_000, 10**6)] == [
        4096,
        4096,
        4096,
        2048,
        384,
        128,
    ]


def test_what_another_input_left_is_not_gone_on_from(job, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        ended_after(patch, 3)
        with pytest.raises(EndedError):
            job()
    with (tmp_path / "new.txt").open("a") as stream:
        stream.write("one more\n")
    assert len(job().read_text().splitlines()) == 51
    assert "earlier start" not in capsys.readouterr().out
    assert not partials(tmp_path)


def test_predictions_on_a_full_disk_are_kept(job, tmp_path):
    whole = job("whole.jsonl").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, before[1]))
    try:
        with pytest.raises(UserError, match=r"out.jsonl cannot be written to: File too large"):
            job()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (partial,) = partials(tmp_path)
    assert whole.startswith(partial.read_bytes())
    assert job().read_bytes() == whole
