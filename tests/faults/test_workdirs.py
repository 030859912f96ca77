"""One run a workdir; what may change on resume; leftovers; being asked to stop or to save."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from jaxtune.core.errors import UserError
from jaxtune.io import lock
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, every
from jaxtune.run.signals import InterruptedRunError, agreed, collected
from jaxtune.run.train import train
from jaxtune.run.workdir import hold_workdir


@pytest.fixture
def settings(tiny_settings, tiny_weights, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_weights("classification", "bert", 1), base)
    more = {"optimizer.schedule": "constant", "optimizer.warmup_fraction": 0}
    return tiny_settings("classification", "full", base, **more)


def replaced(settings, section, **fields):
    return dataclasses.replace(
        settings, **{section: dataclasses.replace(getattr(settings, section), **fields)}
    )


def test_a_second_run_is_told_who_holds_the_workdir(tmp_path):
    code = (
        "import sys; from pathlib import Path; from jaxtune.run.workdir import hold_workdir\n"
        "with hold_workdir(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"run is in use by process {child.pid} on .*, since 20"):
        hold_workdir(tmp_path / "run").__enter__()
    child.kill()  # its lock is stale now: the file is there, and nobody holds it
    child.communicate()
    assert (tmp_path / "run" / ".lock").exists()
    with hold_workdir(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()  # nothing had come to be in it


def test_a_lock_of_this_process_holds_too(tmp_path):
    with lock.held(tmp_path / "a", "it"), pytest.raises(UserError, match=f"process {os.getpid()}"):
        lock.held(tmp_path / "a", "it").__enter__()
    assert not (tmp_path / "a").exists()


def test_what_killed_runs_left_is_cleared_and_what_was_moved_away_comes_back(tmp_path):
    (tmp_path / ".model.abc123").mkdir()
    (tmp_path / ".model.abc123" / "model.safetensors").write_text("half")
    (tmp_path / ".results.json.x9").write_text("{")
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "config.json").write_text("whole")
    (tmp_path / ".model2.x").write_text("of a person")
    with hold_workdir(tmp_path):
        names = {path.name for path in tmp_path.iterdir()} - {".lock"}
        assert names == {"model", ".model2.x"}
    assert (tmp_path / "model" / "config.json").read_text() == "whole"


def stop_at(step, signum=signal.SIGTERM):
    """A hook that sends this process a signal after a step."""

    def act(moment):
        if moment.step == step:
            signal.raise_signal(signum)

    return Hook(act, every(1))


def test_what_may_change_on_resume_and_what_may_not(settings, tmp_path, capsys):
    workdir = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        train(settings, workdir, Report(quiet=True), hooks=[stop_at(2)])
    with pytest.raises(UserError, match=r"had 6 steps, it is now to have 1, and 3 were taken"):
        train(replaced(settings, "train", num_steps=1), workdir, Report(quiet=True))
    base = tmp_path / "base"
    file = base / "tokenizer_config.json"
    kept = file.read_text()
    file.write_text(kept + "\n")
    with pytest.raises(
        UserError, match="the tokenizer or image processor of the base model has ch"
    ):
        train(settings, workdir, Report(quiet=True))
    file.write_text(kept)
    config = base / "config.json"
    kept = config.read_text()
    config.write_text(json.dumps(json.loads(kept) | {"attention_probs_dropout_prob": 0.25}))
    with pytest.raises(UserError, match=r"the config.json of the base model has changed"):
        train(settings, workdir, Report(quiet=True))
    config.write_text(kept)
    base.rename(tmp_path / "moved")
    longer = replaced(settings, "train", num_steps=8, log_every_steps=3, checkpoint_every_steps=1)
    longer = replaced(longer, "model", path=str(tmp_path / "moved"))
    results = train(longer, workdir, Report())
    assert (results["steps"], results["resumed_from_step"]) == (8, 3)
    assert "train.num_steps was 6, is 8" in capsys.readouterr().out
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["train"]["num_steps"] == 8
    whole = train(longer, tmp_path / "whole", Report(quiet=True))
    assert whole["scores"] == results["scores"]  # as if it had been so from the beginning


def test_a_rate_that_follows_from_the_length_refuses_another(settings, tmp_path):
    falling = replaced(settings, "optimizer", schedule="linear")
    with pytest.raises(InterruptedRunError):
        train(falling, tmp_path / "run", Report(quiet=True), hooks=[stop_at(2)])
    with pytest.raises(UserError, match=r"learning rates follow from the length.*linear"):
        train(replaced(falling, "train", num_steps=8), tmp_path / "run", Report(quiet=True))


def test_sigusr1_saves_and_goes_on(settings, tmp_path):
    steps = []

    def look(moment):
        if moment.step == 5:  # the signal came after step 3, and was seen after the next
            folder = tmp_path / "run" / "checkpoints"
            steps.extend(path.name for path in folder.glob("*") if path.name.startswith("4"))

    hooks = [stop_at(3, signal.SIGUSR1), Hook(look, every(1))]
    settings = replaced(settings, "train", eval_every_steps=6)
    results = train(settings, tmp_path / "run", Report(quiet=True), hooks=hooks)
    assert results["steps"] == 6
    assert steps  # written, or being written


def test_the_time_is_up(settings, tmp_path):
    short = replaced(settings, "train", max_seconds=1e-3)
    for step in (1, 2):
        words = f"stopped by max_seconds at step {step}; the same command goes on"
        with pytest.raises(InterruptedRunError, match=words) as caught:
            train(short, tmp_path / "run", Report(quiet=True))
        assert caught.value.signum == 14
    done = train(replaced(short, "train", max_seconds=None), tmp_path / "run", Report(quiet=True))
    assert done["resumed_from_step"] == 2


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ([], 0),
        ([signal.SIGUSR1], signal.SIGUSR1),
        ([signal.SIGUSR1, signal.SIGINT], signal.SIGINT),
        ([14, signal.SIGTERM], 14),
    ],
)
def test_what_is_acted_on(received, expected):
    assert agreed(received, at_log=False) == expected


@pytest.mark.parametrize(
    "line", ["[1]", '{"a": 1}', '{"step": "1"}', '{"step": true}', "x", "\udcff"]
)
def test_a_log_of_other_things_is_named_with_its_line(tmp_path, line):
    from jaxtune.run.trackers import JsonLines

    file = tmp_path / "metrics.jsonl"
    raw = f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'.encode("utf-8", "surrogateescape")
    file.write_bytes(raw)
    with pytest.raises(UserError, match=r"metrics.jsonl line 2: found"):
        JsonLines(file).start({}, 2)
    assert file.read_bytes() == raw


@pytest.fixture
def interruptible():
    """SIGINT acts as in the foreground; what a shell starts in the background ignores it."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_acts_at_once():
    with collected() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
