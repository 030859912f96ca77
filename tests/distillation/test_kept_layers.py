"""A model of some of a folder's layers: which weights it has, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.export.model_folder import export_model
from jaxtune.models.design import choose_outputs, make_design
from jaxtune.models.kept_layers import keep_layers
from jaxtune.models.pretrained import load_pretrained, load_weights
from jaxtune.models.source import read_source
from jaxtune.tasks.registry import TASKS

ROOT = Path(__file__).parents[1] / "golden" / "families"


def load(case, chosen):
    source = keep_layers(read_source(ROOT / case), chosen)
    head = "image" if case.endswith("image") else "sequence"
    outputs = choose_outputs(head, source.hf_config)
    return load_weights(make_design(source, head, outputs))


@pytest.mark.parametrize(
    ("case", "chosen", "layers"),
    [
        ("bert-sequence", ("0", "2"), (0, 2)),
        ("roberta-sequence", ("1",), (1,)),
        ("distilbert-sequence", ("every 2",), (0, 2)),
        ("electra-sequence", ("every:3",), (0,)),
        ("mpnet-sequence", ("1", "2"), (1, 2)),
        ("deberta-v2-sequence", ("every2",), (0, 2)),
        ("gpt2-sequence", ("0", "1"), (0, 1)),
        ("vit-image", ("0", "2"), (0, 2)),
        ("dinov2-image", ("2",), (2,)),
        ("modernbert-sequence", ("0", "1", "3"), (0, 1, 3)),
    ],
)
def test_its_layers_are_those_of_the_folder(case, chosen, layers, tmp_path):
    model = load(case, chosen)
    assert model.design.source.layers == layers
    assert not model.report.new
    assert not model.report.unused
    head = "image" if case.endswith("image") else "sequence"
    whole = load_pretrained(ROOT / case, head=head)
    flat = paths.flatten(whole.params)
    names = model.design.source.family.names.layers
    seen = set()
    for leaf, value in paths.flatten(model.params).items():
        found = re.search(names, leaf)
        if found:
            start, stop = found.span(1)
            seen.add(int(found[1]))
            leaf = f"{leaf[:start]}{layers[int(found[1])]}{leaf[stop:]}"
        np.testing.assert_array_equal(value, flat[leaf], err_msg=leaf)
    assert seen == set(range(len(layers)))

    task = TASKS["image_classification" if head == "image" else "classification"]
    export_model(tmp_path / "model", model, model.params, None, task, {})
    again = load_pretrained(tmp_path / "model", head=head)
    assert not again.report.new
    assert not again.report.unused
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    assert again.config == model.config


def test_a_layer_of_modernbert_keeps_its_kind():
    """Of four, every third sees all tokens: 0 and 3."""
    model = load("modernbert-sequence", ("0", "1", "3"))
    assert [model.config.is_global(i) for i in range(3)] == [True, False, True]


def test_a_first_layer_of_another_kind_is_refused():
    with pytest.raises(UserError, match=r"attn_norm.*expected 0 among the layers"):
        load("modernbert-sequence", ("1", "2"))


@pytest.mark.parametrize(
    ("case", "chosen", "words"),
    [
        ("bert-sequence", ("0", "3"), "has 3 layers: expected numbers from 0 to 2"),
        ("bert-sequence", ("2", "0"), "in increasing order"),
        ("bert-sequence", ("0", "0"), "in increasing order"),
        ("bert-sequence", ("every 0",), "or every 2"),
        ("bert-sequence", ("all",), "or every 2"),
        ("albert-sequence", ("0",), "is albert: its layers share their weights"),
        ("resnet-image", ("0",), "is resnet: its layers differ in shape"),
    ],
)
def test_layers_that_are_not_there(case, chosen, words):
    with pytest.raises(UserError, match=words):
        keep_layers(read_source(ROOT / case), chosen)


def test_without_a_choice_nothing_changes():
    source = read_source(ROOT / "bert-sequence")
    assert keep_layers(source, ()) is source


def test_the_spelling_of_version_4_of_modernbert(tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(ROOT / "modernbert-sequence", folder)
    config = json.loads((folder / "config.json").read_text())
    del config["layer_types"]
    (folder / "config.json").write_text(json.dumps(config))
    found = keep_layers(read_source(folder), ("0", "1", "3"))
    assert found.hf_config["layer_types"] == [
        "full_attention",
        "sliding_attention",
        "full_attention",
    ]
