"""Whole runs on a tiny model: what they write, killing and resuming, the best step, prediction."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from event_files import read_events
from metrics import resumed_at, steady_rows
from safetensors.numpy import load_file

from jaxtune import main, predict
from jaxtune.core.errors import UserError
from jaxtune.run import loop

ROOT = Path(__file__).parents[2]


def run(config, workdir, *more):
    main.main([f"--config={config}", f"--workdir={workdir}", *more])
    return json.loads((workdir / "results.json").read_text())


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def same_weights(one, other):
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_run_learns_and_writes_everything(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    results = run(config, workdir, "--config.train.num_epochs=12", "--config.data.layout=bucketed")
    assert results["scores"]["test"]["accuracy"] > 0.8  # three classes
    assert results["steps"] == 132
    assert results["compile_seconds"] > 0
    assert results["peak_memory_bytes"] > 1e6
    assert results["tokens_per_second"] > results["examples_per_second"] > 0
    names = {path.name for path in workdir.iterdir()}
    files = {"config.json", "metrics.jsonl", "results.json"}
    assert names == files | {"checkpoints", "model", "predictions", "tensorboard"}
    log = rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in log if "train/loss" in row] == [*range(4, 133, 4)]
    assert [row["step"] for row in log if "validation/accuracy" in row] == [*range(11, 133, 11)]
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["train"]["num_epochs"] == 12
    assert len(saved["model"]["sha256"]) == len(saved["data"]["sha256"]) == 64
    model = json.loads((workdir / "model" / "config.json").read_text())
    assert model["id2label"] == {"0": "bad", "1": "good", "2": "so"}
    shown = capsys.readouterr().out
    assert "newly initialised: classifier (the files' head has other classes" in shown
    assert "trainable" in shown
    assert "Traceback" not in shown


def test_same_seed_same_bits_and_another_seed_others(config, finished, tmp_path):
    """By the resolved config of a run alone, and by another."""
    run(finished / "config.json", tmp_path / "again")
    assert same_weights(finished, tmp_path / "again")
    assert steady_rows(finished) == steady_rows(tmp_path / "again")
    run(config, tmp_path / "other", "--config.seed=6")
    assert not same_weights(finished, tmp_path / "other")


def test_a_run_tells_tensorboard_what_metrics_jsonl_has(finished):
    told = read_events(finished / "tensorboard")
    lines = rows(finished / "metrics.jsonl")
    known = ("step", "event", "split", "time")
    expected = [(row["step"], k, v) for row in lines for k, v in row.items() if k not in known]
    assert [entry[:2] for entry in told.scalars] == [entry[:2] for entry in expected]
    values = [[entry[2] for entry in entries] for entries in (told.scalars, expected)]
    np.testing.assert_array_equal(np.float32(values[0]), np.float32(values[1]))
    assert json.loads(told.texts["config/text_summary"]) == json.loads(
        (finished / "config.json").read_text()
    )


def test_losses_are_fetched_where_they_are_read_and_few_steps_are_in_flight(
    config, tmp_path, monkeypatch
):
    fetched, waited = [], []
    add, block = loop.add_losses, loop.jax.block_until_ready

    def count(run, progress, taken, params, say):
        fetched.append(len(taken))
        return add(run, progress, taken, params, say)

    def note(infos):
        if isinstance(infos, list):  # of steps, and not the first state
            waited.append(len(infos))
        return block(infos)

    monkeypatch.setattr(loop, "add_losses", count)
    monkeypatch.setattr(loop.jax, "block_until_ready", note)
    more = ["--config.train.num_epochs=1", "--config.train.log_every_steps"]
    run(config, tmp_path / "rare", f"{more[1]}=100", more[0])
    assert fetched == [11]  # all of the epoch at once, at its evaluation
    assert waited == [0] * 5 + [1] * 6  # first for compiling; then for the step before the last 4
    fetched.clear()
    run(config, tmp_path / "often", f"{more[1]}=4", more[0])
    assert fetched == [4, 4, 3]
    assert same_weights(tmp_path / "rare", tmp_path / "often")
    losses = [
        [
            row["train/loss"]
            for row in rows(tmp_path / name / "metrics.jsonl")
            if "train/loss" in row
        ]
        for name in ("rare", "often")
    ]
    # 10 batches of 8 and a ragged one of 3, somewhere in the order
    assert min(losses[1]) < losses[0][0] < max(losses[1])


LONG = ["--config.train.checkpoint_every_steps=7", "--config.train.num_epochs=6"]


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM,),
        pytest.param((signal.SIGTERM, signal.SIGINT, signal.SIGKILL), marks=pytest.mark.exhaustive),
    ],
)
def test_killed_and_started_again_ends_with_the_same_bits(signals, config, tmp_path):
    workdir = tmp_path / "killed"
    command = [sys.executable, "-m", "jaxtune.main", f"--config={config}", f"--workdir={workdir}"]
    for how, step in zip(signals, (16, 28, 40), strict=False):
        process = subprocess.Popen(
            [*command, *LONG], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        wait_for_step(workdir / "metrics.jsonl", step, process)
        process.send_signal(how)
        output, _ = process.communicate(timeout=60)
        assert not (workdir / "results.json").exists(), "it was killed too late to show anything"
        if how != signal.SIGKILL:
            assert process.returncode == 128 + how
            assert "the same command goes on from there" in output
            assert "Traceback" not in output
        if step > 16:
            assert "going on from the checkpoint at step" in output
    again = subprocess.run(
        [*command, *LONG],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    assert again.stderr == ""  # nothing is said that is not for the person
    assert "arning" not in again.stdout
    done = json.loads((workdir / "results.json").read_text())
    assert 14 <= done["resumed_from_step"] < done["steps"] == 66
    run(config, tmp_path / "whole", *LONG)
    assert same_weights(tmp_path / "whole", workdir)
    assert steady_rows(tmp_path / "whole") == steady_rows(workdir)
    assert resumed_at(tmp_path / "whole") == []
    assert len(resumed_at(workdir)) == len(signals)
    assert resumed_at(workdir)[-1] == done["resumed_from_step"]


def wait_for_step(log, step, process):
    """Until the log reaches a step that is no epoch's end."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        lines = log.read_text().splitlines() if log.exists() else []
        if lines and json.loads(lines[-1])["step"] >= step and json.loads(lines[-1])["step"] % 11:
            return
        time.sleep(0.005)
    raise AssertionError("the run never got there")


def test_a_finished_run_started_again_changes_nothing(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    before = contents(tmp_path / "run")
    again = run(finished / "config.json", tmp_path / "run")
    assert again == json.loads((finished / "results.json").read_text())
    assert contents(tmp_path / "run") == before
    assert "done before" in capsys.readouterr().out


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_best_step_is_exported_and_patience_stops(deep_config, tmp_path):
    workdir = tmp_path / "run"
    more = [
        "--config.train.best_metric=loss",
        "--config.train.patience=2",
        "--config.train.eval_every_steps=4",
        "--config.train.num_epochs=30",
        "--config.optimizer.learning_rate=0.05",  # it gets worse after the first steps
    ]
    results = run(deep_config, workdir, *more)
    losses = {
        row["step"]: row["validation/loss"]
        for row in rows(workdir / "metrics.jsonl")
        if "validation/loss" in row
    }
    best = min(losses, key=lambda step: losses[step])
    assert results["best_step"] == best
    assert results["stopped_early"]
    assert results["steps"] == best + 2 * 4
    assert results["scores"]["validation"]["loss"] == losses[best]
    kept = {path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {str(best), str(results["steps"])}


@pytest.mark.exhaustive
def test_last_layers_leaves_the_rest_as_it_was(deep_config, tmp_path, golden):
    tuning = ["--config.tuning.name=last_layers", "--config.tuning.num_layers=1"]
    run(deep_config, tmp_path / "run", *tuning)
    before = load_file(golden / "odd" / "model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    for name, value in before.items():
        trained = "layer.2." in name or "pooler" in name or "classifier" in name
        if not name.endswith("key.bias"):
            assert np.array_equal(value, after[name]) != trained, name


@pytest.mark.exhaustive
def test_the_other_choices_train_too(config, tmp_path):
    choices = {
        "optimizer.name": "sgd",
        "optimizer.schedule": "cosine",
        "optimizer.learning_rate": 0.05,
        "optimizer.clip_norm": None,
        "precision.compute_dtype": "bfloat16",
        "train.num_steps": 60,  # in the midst of the sixth epoch
        "train.eval_every_steps": 25,
    }
    workdir = tmp_path / "run"
    results = run(config, workdir, *[f"--config.{name}={value}" for name, value in choices.items()])
    assert results["steps"] == 60
    log = rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in log if "validation/loss" in row] == [25, 50, 60]
    losses = [row["train/loss"] for row in log if "train/loss" in row]
    assert losses[-1] < losses[0]
    weights = load_file(workdir / "model" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {np.dtype("float32")}


def test_padded_and_bucketed_layouts_score_the_same(config, finished, tmp_path, eval_scores):
    shutil.copytree(finished, tmp_path / "run")
    results = json.loads((finished / "results.json").read_text())
    for layout, size in (("padded", 5), ("bucketed", 64)):
        sizes = [f"--config.data.layout={layout}", f"--config.train.eval_batch_size={size}"]
        scores = eval_scores(finished / "config.json", tmp_path / "run", *sizes)
        for split in ("validation", "test"):
            for name, value in scores[split].items():
                assert value == pytest.approx(results["scores"][split][name], abs=1e-6)


def test_predict_labels_files_of_every_kind(finished, tmp_path):
    texts = ["love this great film", "hate, bad", "it is a car"]
    inputs = {
        "new.txt": "\n".join(texts) + "\n",
        "new.jsonl": "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)),
        "new.csv": "id,text\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(texts)),
    }
    found = {}
    for name, content in inputs.items():
        (tmp_path / name).write_text(content)
        for suffix in (".jsonl", ".csv"):
            output = tmp_path / f"{name}{suffix}"
            predict.main(
                [
                    f"--model={finished / 'model'}",
                    f"--input={tmp_path / name}",
                    f"--output={output}",
                ]
            )
            found[name, suffix] = read_predictions(output)
    numbered = [{"row": i} for i in (1, 2, 3)]
    beside = [{"id": i, "text": text} for i, text in enumerate(texts)]
    own = {"new.txt": numbered, "new.jsonl": beside, "new.csv": beside}
    first = [{k: v for k, v in r.items() if k != "row"} for r in found["new.txt", ".jsonl"]]
    for (name, suffix), records in found.items():
        for i, (row, record, given) in enumerate(zip(records, first, own[name], strict=True)):
            as_text = suffix == ".csv" or name == "new.csv"
            given = {k: str(v) for k, v in given.items()} if as_text else given
            if suffix == ".csv":
                flat = {f"probability_{k}": repr(v) for k, v in record["probabilities"].items()}
                record = {"label": record["label"], **flat}
            assert [*row.items()] == [*given.items(), *record.items()], (name, suffix, i)
    assert len(first) == 3
    for record in first:
        assert record.keys() == {"label", "probabilities"}
        assert list(record["probabilities"]) == ["bad", "good", "so"]
        assert sum(record["probabilities"].values()) == pytest.approx(1)
        assert record["label"] == max(record["probabilities"], key=record["probabilities"].get)


def read_predictions(file):
    if file.suffix == ".jsonl":
        return rows(file)
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.exhaustive
def test_regression_on_pairs(tmp_path, flat, write_csv):
    rng = np.random.default_rng(0)
    words = ["good", "bad", "film", "car", "great", "poor", "cat", "dog"]
    table = []
    for _ in range(90):
        pair = [" ".join(rng.choice(words, size=rng.integers(1, 5))) for _ in range(2)]
        table.append((*pair, "good" in pair[0] or "great" in pair[0]))
    table = list({row[:2]: (*row[:2], float(row[2]) * 5) for row in table}.values())
    data = write_csv(tmp_path / "pairs.csv", table, header=("one", "two", "score"))
    overrides = {
        "task": "regression",
        "model.path": flat,
        "data.path": data,
        "data.layout": "padded",
        "data.text_columns": "one,two",
        "data.label_column": "score",
        "data.max_length": 20,
        "data.test_size": 20,
        "optimizer.learning_rate": 0.01,
        "train.num_epochs": 20,
    }
    config = tmp_path / "config.py"
    config.write_text("from jaxtune.run.config import default_config as get_config\n")
    more = [f"--config.{name}={value}" for name, value in overrides.items()]
    results = run(config, tmp_path / "run", *more)
    assert results["scores"]["test"].keys() == {"loss", "pearson", "spearman", "mse"}
    assert results["scores"]["test"]["pearson"] > 0.5
    output = tmp_path / "out.jsonl"
    source = write_csv(tmp_path / "new.csv", [r[:2] for r in table[:4]], header=("one", "two"))
    predict.main([f"--model={tmp_path / 'run/model'}", f"--input={source}", f"--output={output}"])
    assert [record.keys() for record in rows(output)] == [{"one", "two", "value"}] * 4


def test_a_profile_and_less_memory_change_no_result(config, tmp_path, capsys):
    run(config, tmp_path / "plain", "--config.train.num_epochs=1")
    more = ["--config.profile.steps=4,6", "--config.train.gradient_checkpointing=True"]
    run(config, tmp_path / "other", "--config.train.num_epochs=1", *more)
    shown = capsys.readouterr().out
    assert "each layer is computed again in the backward pass" in shown
    assert f"profile: {tmp_path / 'other' / 'profile'}" in shown
    assert len([*(tmp_path / "other" / "profile").rglob("*.xplane.pb")]) == 1
    first, second = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "other")
    )
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, atol=1e-3, err_msg=name)
    with pytest.raises(UserError, match=r"profile.steps is \(4, 12\), but the run has 11 steps"):
        run(config, tmp_path / "long", "--config.train.num_epochs=1", "--config.profile.steps=4,12")
