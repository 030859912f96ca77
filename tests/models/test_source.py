"""What a path is taken for, and what config.json may say, before any weight is read."""

import json
import os
import shutil

import pytest

from jaxtune.core.errors import UserError
from jaxtune.models.source import MAX_CLASSES, find_folder, read_source


@pytest.fixture
def odd(golden, tmp_path):
    """A model folder to spoil."""
    return shutil.copytree(golden / "odd", tmp_path / "odd")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    def fetch(name, **_):
        raise OSError(f"{name} was asked of the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)


def spoil(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


LOCAL = ["runs/mine", "./x", "../x/y", "~/models/x", "/no/such/folder", "a/b/c", "mine/model"]


@pytest.mark.parametrize("path", [*LOCAL, "here/x", "x\\y"])
def test_a_local_looking_path_never_goes_to_a_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match="does not exist, and is no hub id"):
        find_folder(path)


@pytest.mark.parametrize("path", ["bert-base-uncased", "google/bert_uncased_L-2", "a.b/c-d.e"])
def test_a_hub_id_does(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="was asked of the hub"):
        find_folder(path)


def test_the_folder_of_a_run_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"task": "x", "model": {"path": "base"}}))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"folder of a run.*no model/ yet"):
        find_folder(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"did you mean .*/model\?"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": 3.5}, "architectures is 3.5, expected a list of names"),
        ({"id2label": None, "num_labels": 10**9}, f"up to {MAX_CLASSES}: num_labels is 10000"),
        ({"id2label": None, "num_labels": "3"}, "num_labels"),
        ({"id2label": None, "num_labels": True}, "num_labels"),
        ({"id2label": ["a"]}, "id2label is a list"),
        ({"id2label": {"a": "b"}}, "id2label"),
        ({"auto_map": {"AutoModel": "theirs.Model"}}, r"auto_map: .*theirs\.Model"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_config"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, expected .* to 1000"),
        ({"layer_norm_eps": float("inf")}, "layer_norm_eps is inf"),
        ({"model_type": ["x"] * 999}, "model_type"),
    ],
)
def test_what_config_json_may_not_say(odd, fields, message):
    spoil(odd, **fields)
    with pytest.raises(UserError, match=message) as caught:
        read_source(odd)
    assert len(str(caught.value)) < 500 + len(str(odd))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_only_regular_files_are_opened(odd, name):
    (odd / name).unlink(missing_ok=True)
    os.mkfifo(odd / name)
    with pytest.raises(UserError, match=rf"{name} is no file, but expected a regular file"):
        read_source(odd)


@pytest.mark.parametrize("name", ["./" + "x" * 5000, "a\0b", "runs/\ud83d", "./" + "x/" * 3000])
def test_a_name_that_no_folder_can_have(name):
    with pytest.raises(UserError, match="does not exist"):
        read_source(name)
