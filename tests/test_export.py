"""Exported folders: the same bits, what transformers reads, and all or nothing."""

import json
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoTokenizer

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.export.model_folder import _config, export_model, read_card
from jaxtune.models.design import Outputs
from jaxtune.models.pretrained import load_pretrained
from jaxtune.tasks.classification import CLASSIFICATION
from jaxtune.tasks.masked_lm import MASKED_LM
from jaxtune.tasks.question_answering import QUESTION_ANSWERING
from jaxtune.tasks.regression import REGRESSION

CARD = {"task": "classification", "text_columns": ["text"], "max_length": 12}
TASKS = {"odd": CLASSIFICATION, "one_type": REGRESSION}


@pytest.fixture(scope="module")
def odd(golden):
    return load_pretrained(golden / "odd")


@pytest.fixture(scope="module")
def tokenizer(golden):
    return load_tokenizer(golden / "odd")


@pytest.fixture
def export(odd, tokenizer, tmp_path):
    """A function that exports odd, with other values where given, and returns the folder."""

    def run(name="model", pretrained=odd, params=None, task=CLASSIFICATION, card=CARD):
        folder = tmp_path / name
        params = pretrained.params if params is None else params
        export_model(folder, pretrained, params, tokenizer, task, card)
        return folder

    return run


def with_classes(model, names):
    return model._replace(design=model.design._replace(outputs=Outputs(len(names), names)))


def config_of(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TASKS)
def test_what_is_exported_loads_bit_for_bit(golden, export, name):
    first = load_pretrained(golden / name)
    # Values that no short decimal holds, and the ones that a sloppy conversion would lose.
    odd_values = jnp.array([jnp.nextafter(1.0, 2.0), -0.0, 1e-42, 3e38])
    flat = {
        leaf: jnp.ravel(value).at[:1].set(odd_values[i % 4]).reshape(value.shape)
        for i, (leaf, value) in enumerate(paths.flatten(first.params).items())
    }
    folder = export(pretrained=first, params=paths.unflatten(flat), task=TASKS[name])
    second = load_pretrained(folder)
    assert second.class_names == first.class_names
    assert second.report.unused == ()
    for leaf, value in paths.flatten(second.params).items():
        assert np.asarray(value).tobytes() == np.asarray(flat[leaf]).tobytes(), leaf
    again = export("again", second, second.params, TASKS[name])
    for file in ("model.safetensors", "config.json", "jaxtune.json", "tokenizer.json"):
        assert (folder / file).read_bytes() == (again / file).read_bytes()


def test_names_and_layout_are_those_of_transformers(golden, export):
    written = load_file(export() / "model.safetensors")
    original = load_file(golden / "odd" / "model.safetensors")
    assert written.keys() == original.keys()
    for name, value in written.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, original[name])
    with safetensors.safe_open(export() / "model.safetensors", framework="np") as handle:
        assert handle.metadata() == {"format": "pt"}  # without it, transformers refuses the file


def test_config_of_a_classifier(golden, export, odd):
    source = odd.design.source
    hf_config = source.hf_config | {"_name_or_path": "/home/me", "torch_dtype": "float16"}
    hf_config |= {"num_labels": 7, "extra": 1}
    hub = with_classes(odd, ("yes", "no", "perhaps"))
    hub = hub._replace(design=hub.design._replace(source=source._replace(hf_config=hf_config)))
    config = config_of(export(pretrained=hub))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "yes", "1": "no", "2": "perhaps"}
    assert config["label2id"] == {"yes": 0, "no": 1, "perhaps": 2}
    assert config["problem_type"] == "single_label_classification"
    assert config["dtype"] == "float32"
    assert config["extra"] == 1
    assert not {"_name_or_path", "torch_dtype", "num_labels"} & set(config)
    kept = json.loads((golden / "odd" / "config.json").read_text())
    for name in ("hidden_size", "layer_norm_eps", "model_type", "vocab_size"):
        assert config[name] == kept[name]
    assert source.hf_config == kept  # the caller's own is not changed


def test_config_of_a_regression(golden, export):
    folder = export(pretrained=load_pretrained(golden / "one_type"), task=REGRESSION)
    config = config_of(folder)
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["label2id"] == {"LABEL_0": 0}
    assert config["problem_type"] == "regression"


@pytest.mark.parametrize("task", [QUESTION_ANSWERING, MASKED_LM])
def test_a_head_without_classes_leaves_none_of_the_base(odd, task):
    """transformers makes a head of spans as wide as the classes of config.json: two by default."""
    base = odd._replace(
        design=odd.design._replace(
            head_name=task.head,
            source=odd.design.source._replace(
                hf_config=odd.design.source.hf_config
                | {"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 3}
            ),
        )
    )
    config = _config(base, task)
    of_classes = {"id2label", "label2id", "num_labels", "problem_type"}
    assert not of_classes & set(config)
    found = AutoConfig.for_model(**config)
    assert found.num_labels == 2


def test_class_names_in_any_script(export, odd):
    names = ("schön", "悪い", "👍 “ok”")
    folder = export(pretrained=with_classes(odd, names), card={"base": "größe"})
    assert load_pretrained(folder).class_names == names
    assert "悪い" in (folder / "config.json").read_text(encoding="utf-8")
    assert read_card(folder) == {"base": "größe"}


def test_tokenizer(export, golden):
    folder = export()
    texts = ["The food was good", "not walking!"]
    expected = AutoTokenizer.from_pretrained(golden / "odd")(texts)["input_ids"]
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded(texts)["input_ids"] == expected
    assert loaded.model_max_length == 41


def test_card(export, golden):
    assert read_card(export()) == CARD
    assert read_card(golden / "odd") == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_columns", 5),
        ("text_columns", [1]),
        ("max_length", "9"),
        ("task", 1),
        ("n_best", True),
    ],
)
def test_a_card_of_other_types_is_refused(export, field, value):
    folder = export()
    (folder / "jaxtune.json").write_text(json.dumps(CARD | {field: value}))
    with pytest.raises(UserError, match=rf"jaxtune\.json: {field} is"):
        read_card(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
def test_damaged_card(export, content):
    folder = export()
    (folder / "jaxtune.json").write_bytes(content)
    with pytest.raises(UserError, match=r"jaxtune\.json"):
        read_card(folder)


def test_every_file_is_as_readable_as_the_others(export):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in export().iterdir()}
    assert len(modes) == 1  # safetensors makes its file readable by its owner alone


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failing_export_leaves_the_old_folder_whole(export, odd, monkeypatch, error):
    folder = export()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(type(error)):
        export(params=jax.tree.map(jnp.zeros_like, odd.params))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
