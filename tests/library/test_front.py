"""Whole runs in Python: rows in memory, hooks, trackers, prediction, states, scores."""

import json
import shutil

import datasets
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest
from safetensors.numpy import load_file

import jaxtune as jt
from jaxtune import predict
from jaxtune.run.console import Report
from jaxtune.run.hooks import Moment

QUIET = Report(quiet=True)


def read(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def columns(rows):
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def config(tiny_families, tiny_tasks):
    """Five steps of four texts."""
    config = jt.default_config()
    config.model.path, config.model.from_scratch = str(tiny_families["bert"]), True
    config.data.path, config.data.max_length = str(tiny_tasks["classification"].folder), 16
    config.train.batch_size, config.train.num_steps, config.train.log_every_steps = 4, 5, 2
    return config


class Kept:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.calls = []

    def start(self, config, step):
        self.calls.append(("start", config["seed"], step))

    def log(self, step, scores):
        self.calls.append(("log", step, dict(scores)))

    def finish(self):
        self.calls.append(("finish",))


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """(workdir, results, tracker, moments) of a run on files."""
    workdir, kept, seen = tmp_path_factory.mktemp("front") / "run", Kept(), []
    hooks = [jt.Hook(lambda moment: seen.append(moment), jt.every(2))]
    results = jt.train(config, str(workdir), hooks=hooks, trackers=[kept], report=QUIET)
    return workdir, results, kept, seen


def test_results_are_those_that_are_written(run):
    workdir, results, *_ = run
    assert results == json.loads((workdir / "results.json").read_text())


def test_a_tracker_is_told_what_metrics_jsonl_holds(run):
    workdir, _, kept, _ = run
    (first, *between, last) = kept.calls
    assert first == ("start", 0, 0)
    assert last == ("finish",)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    known = ("event", "split", "time")
    told = [{name: row[name] for name in row if name not in known} for row in lines]
    assert [{"step": step, **scores} for _, step, scores in between] == told
    assert lines[-1]["event"] == "end"
    results = run[1]
    ends = {f"end/validation/{k}": v for k, v in results["scores"]["validation"].items()}
    assert told[-1] == {"step": 5, "end/best_step": results["best_step"], **ends}


def test_a_hook_sees_each_moment_that_is_due(run):
    *_, seen = run
    assert [moment.step for moment in seen] == [2, 4, 5]
    assert all(isinstance(moment, Moment) for moment in seen)
    assert np.isfinite(float(seen[0].info.loss.value))


@pytest.mark.parametrize("kind", mark_rest(("mappings", "columns", "dataset"), ("dataset",)))
def test_rows_in_memory_train_as_files_do(kind, config, run, tiny_tasks, tmp_path):
    make = {"mappings": list, "columns": columns, "dataset": datasets.Dataset.from_list}[kind]
    folder = tiny_tasks["classification"].folder
    data = {split: make(read(folder, split)) for split in ("train", "validation")}
    results = jt.train(config, tmp_path / "run", data=data, report=QUIET)
    assert results["scores"] == run[1]["scores"]
    first, second = (
        load_file(path / "model" / "model.safetensors") for path in (run[0], tmp_path / "run")
    )
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.exhaustive
def test_other_rows_are_not_gone_on_with(config, tiny_tasks, tmp_path):
    rows = read(tiny_tasks["classification"].folder, "train")
    data = {"train": rows, "validation": rows}
    jt.train(config, tmp_path, data=data, report=QUIET)
    other = {"train": [*rows[1:], rows[0]], "validation": rows}
    with pytest.raises(jt.UserError, match=r"data\.sha256 was"):
        jt.train(config, tmp_path, data=other, report=QUIET)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": 3}, r"data\[train\] is a int: expected a datasets\.Dataset"),
        (
            {"train": {"text": ["a"], "label": []}},
            "columns of one length, at least 1; found text 1, label 0",
        ),
        ({"train": {"body": ["a", "b"], "label": ["x", "y"]}}, r"data\[train\].*body"),
        ({"test": [{"text": "a", "label": "b"}]}, "data has 'test': expected 'train'"),
        ({"train": {"text": ["a", ""], "label": ["x", "y"]}}, r"data\[train\] row 2"),
    ],
)
def test_rows_that_cannot_be_read_are_named(data, message, config, tmp_path):
    with pytest.raises(jt.UserError, match=message):
        jt.train(config, tmp_path, data=data, report=QUIET)


@pytest.fixture(scope="module")
def model(run):
    return jt.load(run[0] / "model")


def test_predictions_are_those_of_the_command(run, model, tiny_tasks, tmp_path):
    source, output = tiny_tasks["classification"].folder / "validation.jsonl", tmp_path / "o.jsonl"
    flags = [f"--model={run[0] / 'model'}", f"--input={source}", f"--output={output}"]
    predict.main([*flags, "--columns="])
    written = [json.loads(line) for line in output.read_text().splitlines()]
    rows = read(source.parent, "validation")
    texts = [row["text"] for row in rows]
    for inputs in (texts, rows, columns(rows), str(source)):
        assert model.predict(inputs) == written
    predict.main(flags)
    beside = [json.loads(line) for line in output.read_text().splitlines()]
    assert model.predict(str(source), columns=["text", "label"]) == beside
    wanted = [
        row | {"predicted_label": record["label"], "probabilities": record["probabilities"]}
        for row, record in zip(rows, written, strict=True)
    ]
    assert beside == wanted
    with pytest.raises(jt.UserError, match=r"'labl'.*'text', 'label'.*Nearest: label"):
        model.predict(rows, columns=["labl"])


def test_scores_are_those_of_the_run(run, model, tiny_tasks):
    rows = read(tiny_tasks["classification"].folder, "validation")
    found = jt.evaluate(model, rows)
    wanted = run[1]["scores"]["validation"]
    assert found == wanted | {"loss": pytest.approx(wanted["loss"], rel=1e-6)}
    assert jt.evaluate(run[0] / "model", str(tiny_tasks["classification"].folder)) == found


def test_a_class_that_the_model_does_not_have_is_named(model):
    with pytest.raises(jt.UserError, match=r"data\[rows\] row 2.*'meal'"):
        jt.evaluate(model, [{"text": "a dog", "label": "yes"}, {"text": "a cat", "label": "meal"}])


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ([("good", "bad")], "row 1: found a tuple of 2, but expected a tuple of text"),
        ([("good",), "bad"], "row 2: found a str, but expected a tuple of text"),
        ([("good",), ()], "row 2: found a tuple of 0"),
    ],
)
def test_texts_that_the_model_would_not_read_are_refused(inputs, word, model):
    with pytest.raises(jt.UserError, match=word):
        model.predict(inputs)


@pytest.mark.parametrize("pooling", ["mean", "first", "last", None])
def test_states_are_those_of_the_last_layer(pooling, model):
    texts = ["the cat is good", "a dog", "film was so bad"]
    found = model.embed(texts, pooling=pooling)
    own = model.saved.pretrained
    for text, states in zip(texts, found, strict=True):
        ids = model.saved.processor.encode([text])[0].ids
        batch = {
            "input_ids": jnp.array([ids]),
            "attention_mask": jnp.ones((1, len(ids)), jnp.int32),
        }
        whole = own.module.apply({"params": own.params}, batch, method="hidden_states")[-1][0]
        wanted = {"mean": whole.mean(0), "first": whole[0], "last": whole[-1], None: whole}[pooling]
        assert states.dtype == np.float32
        np.testing.assert_allclose(states, wanted, atol=2e-6)


def test_a_model_without_a_head_embeds_and_does_not_predict(golden, tmp_path):
    folder = shutil.copytree(golden / "odd_bare", tmp_path / "bare")
    for file in (golden / "odd").glob("*token*"):
        shutil.copy(file, folder)
    shutil.copy(golden / "odd" / "vocab.txt", folder)
    model = jt.load(folder)
    assert model.embed(["good film"]).shape == (1, model.saved.pretrained.config.hidden_size)
    single, pair = model.embed(["good film"]), model.embed([("good film", "bad")])
    assert np.abs(pair - single).max() > 1e-3  # the second text of a pair is read
    assert np.array_equal(model.embed([("good film",)]), single)
    with pytest.raises(jt.UserError, match="no usable head"):
        model.predict(["good film"])


def test_images_in_memory_are_those_of_files(tiny_families, tiny_tasks, tmp_path):
    from PIL import Image

    folder, config = tiny_tasks["image_classification"].folder, jt.default_config()
    config.task, config.train.num_steps, config.train.batch_size = "image_classification", 1, 4
    config.model.path, config.model.from_scratch = str(tiny_families["vit"]), True
    config.data.path = str(folder)
    jt.train(config, tmp_path / "run", report=QUIET)
    model = jt.load(tmp_path / "run" / "model")
    files = sorted((folder / "validation").glob("*/*.png"))
    wanted = [record["probabilities"] for record in model.predict([str(file) for file in files])]
    images = [Image.open(file) for file in files]
    for inputs in (images, [np.asarray(image) for image in images]):
        assert [record["probabilities"] for record in model.predict(inputs)] == wanted
    assert model.embed(images).shape == (len(files), model.saved.pretrained.config.hidden_size)
    with pytest.raises(jt.UserError, match=r"row 1: found an array of float64 \[2, 2\]"):
        model.predict([np.zeros((2, 2))])
