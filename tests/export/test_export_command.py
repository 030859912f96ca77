"""`jaxtune export`: what it writes, what it says, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from cover import COMBINATIONS, mark_rest

from jaxtune import __main__ as console
from jaxtune.core.errors import UserError
from jaxtune.export.graphs import bert, layers
from jaxtune.run.cli import run_command
from jaxtune.run.console import Report
from jaxtune.run.train import train

FORMATS = ("stablehlo", "onnx", "onnx-int8")
CASES = [(*case, form) for case in COMBINATIONS for form in FORMATS]
FEW = [("classification", "bert", form) for form in FORMATS]
FEW += [("question_answering", "distilbert", "onnx"), ("regression", "roberta", "onnx-int8")]


def run(model, form, output):
    console.run(["export", f"--model={model}", f"--format={form}", f"--output={output}"])
    return json.loads((output.parent / f"{output.name}.json").read_text())


@pytest.mark.parametrize(("task", "family", "form"), mark_rest(CASES, FEW))
def test_each_task_of_each_family(task, family, form, tiny_weights, tmp_path, capsys):
    """Compared on the data of its run, whose config.json lies beside the model's folder."""
    about = run(tiny_weights(task, family, 1), form, tmp_path / "new" / "file")
    assert about["format"] == form
    assert about["compared_on"].endswith("rows of the run's validation split")
    least, most = (0, 0.2) if form == "onnx-int8" else (-1, 1e-5)
    assert least < about["largest_difference"] <= most * about["largest_logit"]
    assert (about["agreement"] is None) == (task == "regression")
    if form != "onnx-int8" and about["agreement"] is not None:
        assert about["agreement"] == 1
    told = capsys.readouterr().out
    assert f"{tmp_path / 'new' / 'file'}: {form}, " in told
    assert "examples/s" in told
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"file", "file.json"}


def test_a_model_without_a_run_is_tried_on_drawn_texts(tiny_weights, tmp_path):
    model = shutil.copytree(tiny_weights("classification", "bert", 1), tmp_path / "model")
    about = run(model, "onnx", tmp_path / "model.onnx")
    assert about["compared_on"] == "64 texts drawn at random, for the model lies in no run"
    names = ["input_ids", "attention_mask", "token_type_ids"]
    assert about["inputs"] == {name: ["batch", "length"] for name in names}
    assert about["outputs"] == {"logits": ["batch", 2]}
    assert about["class_names"] == ["no", "yes"]


def test_data_that_has_gone_is_no_reason_to_fail(tiny_weights, tmp_path):
    tree = shutil.copytree(tiny_weights("classification", "bert", 1).parent, tmp_path / "run")
    config = json.loads((tree / "config.json").read_text())
    config["data"]["path"] = str(tmp_path / "gone.csv")
    (tree / "config.json").write_text(json.dumps(config))
    about = run(tree / "model", "onnx", tmp_path / "model.onnx")
    assert "64 texts drawn at random, for the run's data cannot be read" in about["compared_on"]
    assert "gone.csv" in about["compared_on"]


@pytest.mark.parametrize("value", [1e-3, np.nan])
def test_a_file_with_other_logits_is_not_written(value, tiny_weights, tmp_path, monkeypatch):
    right = layers.last_dense

    def wrong(g, x, module):
        return g.op("Add", right(g, x, module), g.constant(value))

    monkeypatch.setattr(bert.layers, "last_dense", wrong)
    model = tiny_weights("classification", "bert", 1)
    with pytest.raises(UserError, match=r"model\.onnx: a logit differs by .* at most 1e-05"):
        run(model, "onnx", tmp_path / "to" / "model.onnx")
    assert not list((tmp_path / "to").iterdir())


def test_few_answers_that_are_the_same_are_told(tiny_weights, tmp_path, monkeypatch, capsys):
    right = layers.last_dense
    monkeypatch.setattr(bert.layers, "last_dense", lambda *given: given[0].op("Neg", right(*given)))
    model = tiny_weights("classification", "bert", 1)
    about = run(model, "onnx-int8", tmp_path / "model.onnx")
    assert about["agreement"] == 0
    assert "warning: only 0.00% of the answers are the model's own" in capsys.readouterr().out


@pytest.fixture
def adapter(tiny_weights, tmp_path):
    """A function: the kind of adapter that a folder says it holds -> the folder."""

    def make(kind):
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
        return tmp_path / "adapter"

    return make


@pytest.mark.parametrize(
    ("kind", "form", "message"),
    [
        ("LORA", "onnx", "holds an adapter and not the model: expected the folder model/"),
        ("LORA", "stablehlo", "expected the folder model/"),
        ("JAXTUNE", "onnx-int8", "--format=stablehlo takes them"),
    ],
)
def test_adapters(kind, form, message, adapter, tmp_path):
    with pytest.raises(UserError, match=message):
        run(adapter(kind), form, tmp_path / "file")


def test_bad_arguments(tiny_weights, tmp_path, monkeypatch, capsys):
    model = tiny_weights("classification", "bert", 1)

    def error(*argv):
        assert run_command(console.run, ["export", f"--model={model}", *argv]) == 2
        return capsys.readouterr().err

    output = f"--output={tmp_path / 'file'}"
    assert "invalid choice: 'onx'" in error("--format=onx", output)
    assert "jaxtune export needs --format." in error(output)
    (tmp_path / "file.json").touch()
    assert "file.json is there already" in error("--format=onnx", output)
    inside = f"--output={tmp_path / 'file.json' / 'x'}"
    assert "expected a file in a folder" in error("--format=onnx", inside)
    monkeypatch.setattr("jaxtune.core.extras.is_installed", lambda package: False)
    told = error("--format=onnx", f"--output={tmp_path / 'other'}")
    assert 'needs onnx and onnxruntime: pip install "jaxtune[export]"' in told
    assert not (tmp_path / "other").exists()


@pytest.mark.exhaustive
def test_parts_that_a_strategy_has_added_go_to_stablehlo(tiny_settings, tiny_weights, tmp_path):
    """Those of `prefix` are in no matrix of the model."""
    settings = tiny_settings("classification", "prefix", tiny_weights("classification", "bert", 1))
    train(settings, tmp_path / "run", Report(quiet=True))
    about = run(tmp_path / "run" / "model", "stablehlo", tmp_path / "model.npz")
    assert about["largest_difference"] <= 1e-5
    with pytest.raises(UserError, match="--format=stablehlo takes them"):
        run(tmp_path / "run" / "model", "onnx", tmp_path / "model.onnx")
