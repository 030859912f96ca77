"""What `describe` says of the settings is what they are."""

import ast
import dataclasses
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import jaxtune
from jaxtune.run.config import load_config
from jaxtune.run.config_reference import Setting, describe, meanings_of
from jaxtune.settings import Settings
from jaxtune.settings.data import AugmentationSettings, DataSettings
from jaxtune.settings.dicts import from_dict, to_dict, to_json
from jaxtune.tuning.registry import STRATEGIES


def sections(kind=Settings):
    """Every dataclass of settings, from the whole down."""
    found = [kind]
    for hint in typing.get_type_hints(kind).values():
        if dataclasses.is_dataclass(hint):
            found += sections(hint)
    return found


def flat(values, prefix=""):
    """Nested dicts as one, by dotted name."""
    found = {}
    for name, value in values.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{name}": value} if inner is None else inner
    return found


BATCH = "examples a step; groups of texts, where these are drawn together."


def test_the_names_of_groups_are_not_typed():
    data = {setting.name for setting in describe() if setting.name.startswith("data.")}
    assert {name.removeprefix("data.") for name in data if "augmentation" not in name} == {
        *("path", "name", "sha256", "encoding", "column_names", "text_columns", "image_column"),
        *("format", "conll_columns", "on_bad_row", "max_image_pixels", "max_row_characters"),
        *("label_column", "label_columns", "max_length", "max_train_examples", "layout"),
        *("max_eval_examples", "validation_size", "test_size", "split_seed", "token_dropout"),
        *("class_sampling", "max_pairs"),
        *("mask_probability", "doc_stride", "max_answer_length", "n_best", "allow_no_answer"),
        *("no_answer_threshold", "max_expansion", "query_prompt", "document_prompt"),
        *("label_lists", "label_separator", "on_unknown_class", "no_label", "group_column"),
    }
    tuning = {setting.name for setting in describe() if setting.name.startswith("tuning.")}
    assert {name.removeprefix("tuning.") for name in tuning} == {
        *("name", "num_layers", "rules", "order", "stage_by", "stage_length", "layers_per_stage"),
        *("targets", "rank", "alpha", "dropout", "use_rslora", "use_dora", "feedforward_targets"),
        *("placement", "bottleneck_size", "prefix_length", "frozen_dropout", "batch_statistics"),
    }


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_field_is_documented_and_nothing_else(section):
    assert [*meanings_of(section)] == [field.name for field in dataclasses.fields(section)]


def test_every_setting_is_there_once_under_the_name_that_is_typed():
    names = [setting.name for setting in describe()]
    assert len({*names}) == len(names)
    assert {*names} == {*flat(json.loads(to_json(Settings())))}


def test_the_defaults_can_be_typed_and_give_the_defaults(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model": {"path": "m"}, "data": {"path": "d"}}))
    typed = {setting.name: setting.default for setting in describe()}
    assert typed.pop("model.path") == typed.pop("data.path") == ""
    assert load_config(str(file), typed) == load_config(str(file), {})


def test_what_a_strategy_does_with_an_unset_field_is_what_its_class_does():
    said = {}
    for setting in describe():
        if setting.name.startswith("tuning.") and setting.default == "None":
            found = re.search(r"[;:] `?([^`;]+)`? if unset\.", setting.meaning)
            said[setting.name.removeprefix("tuning.")] = found and found[1]
    checked = set()
    for strategy in STRATEGIES.values():
        for field in dataclasses.fields(strategy):
            default = field.default
            if field.name in said and default is not False and default is not dataclasses.MISSING:
                number = default if isinstance(default, str) else f"{default:g}"
                assert said[field.name] == number, field.name
                checked.add(field.name)
    assert checked == {
        *("order", "stage_by", "stage_length", "layers_per_stage", "rank", "alpha", "dropout"),
        *("placement", "bottleneck_size", "prefix_length"),
    }


def test_every_meaning_is_one_line():
    for setting in describe():
        assert setting.meaning
        assert "\n" not in setting.meaning


@pytest.mark.parametrize(
    "setting",
    [
        Setting("train.batch_size", "a whole number, at least 1", "32", BATCH),
        Setting(
            "train.patience",
            "a whole number, at least 1, or None",
            "None",
            "stop after so many evaluations without a better one; None never stops early.",
        ),
        Setting(
            "model.path",
            "text, a folder or a hub id",
            "",
            "a folder in the transformers layout, or a hub id.",
        ),
        Setting("optimizer.b1", "a number, at least 0 and below 1", "0.9", "AdamW's first decay."),
        Setting(
            "activation_cache.enabled",
            "true or false",
            "true",
            "whether it is kept from one epoch to the next.",
        ),
        Setting(
            "data.column_names",
            "names joined by commas",
            "()",
            "for tables without a header row.",
        ),
        Setting(
            "tuning.stage_by",
            "one of epoch, step, plateau or None",
            "None",
            "of `gradual`: what ends a stage: `epoch`, `step` or `plateau` (of the validation"
            " score); `epoch` if unset.",
        ),
    ],
    ids=lambda setting: setting.name,
)
def test_what_is_said_of_a_setting(setting):
    assert setting in describe()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"path": "p", "max_length": 9, "n_best": 3, "split_seed": 4, "text_columns": ("a", "b")},
        {"augmentation": {"flip": True}, "layout": "padded"},
    ],
)
def test_a_section_from_flat_values_and_back(values):
    section = from_dict(DataSettings, values)
    found = to_dict(section)
    for name, value in values.items():
        if name == "augmentation":
            assert section.augmentation == AugmentationSettings(flip=True)
        else:
            assert found[name] == value
    assert from_dict(DataSettings, found) == section
    rest = {name: value for name, value in to_dict(DataSettings()).items() if name not in values}
    assert {name: found[name] for name in rest} == rest


def test_a_name_that_a_section_has_not_is_no_silent_default():
    with pytest.raises(TypeError, match=r"DataSettings has no fields \['max_lenght'\]"):
        from_dict(DataSettings, {"max_lenght": 9})


def test_no_room_below_that_of_runs_takes_the_settings_whole():
    root = Path(jaxtune.__file__).parent
    rooms = {file.relative_to(root).parts[0]: [] for file in root.rglob("*.py")}
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "jaxtune.settings":
                rooms[file.relative_to(root).parts[0]] += [alias.name for alias in node.names]
    above = {"run", "studies", "drafting"}
    assert {room for room, names in rooms.items() if "Settings" in names} == above
    assert "LossSettings" in rooms["tasks"]


def test_nothing_heavy_is_imported_for_it():
    code = (
        "import sys; from jaxtune.run.config_reference import describe; describe();"
        "print({'jax', 'numpy', 'ml_collections', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
