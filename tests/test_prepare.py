"""What is wrong with config, data or tokenizer is said before any weight is looked for."""

import dataclasses
import json
import shutil
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import numpy as np
import pytest
from conftest import write_table

from jaxtune.core.errors import UserError
from jaxtune.models import source
from jaxtune.models.attention_path import USUAL
from jaxtune.run import model_layouts, predictions
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.summary import Cost, show_groups
from jaxtune.settings import ModelSettings, Settings
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.settings.tuning import TuningSettings


@pytest.fixture
def no_weights(tmp_path, golden):
    """A model folder without its weights, which any reading of them would report."""
    folder = tmp_path / "model"
    shutil.copytree(golden / "odd", folder)
    (folder / "model.safetensors").unlink()
    return folder


def asked(folder, data, **fields):
    settings = Settings(
        model=ModelSettings(path=str(folder)),
        data=from_dict(DataSettings, {"path": str(data), "max_length": 16}),
    )
    return dataclasses.replace(settings, **fields)


def test_only_then_weights_are_missed(no_weights, tiny_data):
    with pytest.raises(UserError, match="holds no weights"):
        prepare(asked(no_weights, tiny_data), Report())


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (TuningSettings("last_layers", num_layers=9), "num_layers is 9, but the model has 3"),
        (TuningSettings("last_layers"), "num_layers must be set"),
        (TuningSettings("rules", rules=("nothing=frozen",)), "matches none of the"),
    ],
)
def test_the_strategy_is_checked_first(no_weights, tiny_data, tuning, message):
    with pytest.raises(UserError, match=message):
        prepare(asked(no_weights, tiny_data, tuning=tuning), Report())


def test_the_tokenizer_is_checked_first(no_weights, tiny_data):
    file = no_weights / "config.json"
    config = json.loads(file.read_text()) | {"vocab_size": 90}
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="tokens, but the model has 90 word embeddings"):
        prepare(asked(no_weights, tiny_data), Report())


def test_a_start_reads_config_json_once_and_traces_the_parameters_once(
    tmp_path, golden, tiny_data, monkeypatch
):
    folder = tmp_path / "model"
    shutil.copytree(golden / "odd", folder)
    config = json.loads((folder / "config.json").read_text())
    names = {str(i): name for i, name in enumerate(("bad", "good", "so"))}
    own = {"id2label": names, "layer_norm_eps": 3e-12}  # no other test has traced it
    (folder / "config.json").write_text(json.dumps(config | own))
    reads, traces = [], []
    read, init = source.read_json_object, nn.Module.init
    monkeypatch.setattr(source, "read_json_object", lambda file: reads.append(file) or read(file))
    monkeypatch.setattr(nn.Module, "init", lambda *args: traces.append(args) or init(*args))
    settings = asked(folder, tiny_data, tuning=TuningSettings("lora"))
    run = prepare(settings, Report())
    show_groups(run, Report())
    Cost(run, Report())
    assert [file.name for file in reads] == ["config.json"]
    assert not run.pretrained.report.new  # which would be drawn: a trace of its own
    assert len(traces) == 1


@pytest.mark.parametrize("strategy", ["head", "bitfit", "full"])
def test_from_scratch_a_strategy_freezes_as_it_is_asked(strategy, tiny_settings, tiny_weights):
    model = tiny_weights("classification", "bert", 1)
    settings = [
        tiny_settings("classification", strategy, model, **{"model.from_scratch": drawn})
        for drawn in (False, True)
    ]
    files, scratch = (prepare(each, Report(quiet=True)) for each in settings)
    assert scratch.tuning.stage_labels == files.tuning.stage_labels
    told = [note for note in scratch.data.notes if "stays as it was drawn" in note]
    assert len(told) == (strategy != "full")
    assert not [note for note in files.data.notes if "drawn" in note]


def test_what_is_left_to_run_decides_how_many_shapes_are_expected(
    tiny_weights, tiny_settings, tmp_path, monkeypatch
):
    """Of training by its steps, of evaluation by how often it comes, of prediction by its rows."""
    monkeypatch.setattr(model_layouts, "attention_cost", lambda design: USUAL)  # or short rows pay
    rng, words = np.random.default_rng(0), np.array(["cat", "dog", "is", "was", "good", "bad"])
    rows = [(" ".join(rng.choice(words, n)), "ab"[n % 2]) for n in rng.integers(1, 30, 600)]
    for split, part in (("train", rows[:400]), ("validation", rows[400:])):
        write_table(tmp_path / f"{split}.csv", part)
    model = tiny_weights("classification", "bert", 1)

    def expected(**changes):
        changes = {"data.path": str(tmp_path), "data.layout": "packed"} | changes
        changes |= {"data.max_length": 32}
        changes |= {"train.batch_size": 8, "train.eval_batch_size": 8}
        settings = tiny_settings("classification", "head", model, **changes)
        run = prepare(settings, Report(quiet=True))
        layouts = (run.data.stream.layout, run.data.eval_layout)
        return run, *(len(layout.packing.shapes) - 2 for layout in layouts)

    many = 10**7  # of so many batches, whatever is saved is more than compiling takes
    run, *short = expected(**{"train.num_steps": 10})
    assert max(short) <= 1
    _, training, evaluation = expected(**{"train.num_steps": many, "train.eval_every_steps": many})
    assert training > 1 >= evaluation
    _, _, evaluation = expected(**{"train.num_steps": many, "train.eval_every_steps": 1})
    assert evaluation > 1

    lengths = run.data.examples["train"].lengths
    saved: Any = SimpleNamespace(pretrained=run.pretrained, task=run.task)
    counts = [
        len(predictions.choose(saved, lengths, 8, count).packing.shapes) - 2
        for count in (None, 400, 8 * many)
    ]
    assert max(counts[:2]) <= 1
    assert counts[2] > 1
