"""Config files, command-line overrides, and their validation, before anything is loaded.

A config is an `ml_collections.ConfigDict` with the fields of `jaxtune.settings.Settings`; its
file defines `get_config()`. A run's own `config.json` is a config file too.
"""

import dataclasses
import importlib.util
import os
import re
import traceback
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxtune.core.errors import UserError, nearest
from jaxtune.io.json_files import read_json_object
from jaxtune.run import config_types
from jaxtune.settings import Settings


def default_config() -> ConfigDict:
    """A locked ConfigDict with every setting at its default; unset ones keep their type."""

    def section(settings: Any) -> ConfigDict:
        node = ConfigDict()
        for name, hint in config_types.hints(type(settings)).items():
            value = getattr(settings, name)
            if dataclasses.is_dataclass(value):
                node[name] = section(value)
            elif type(None) in typing.get_args(hint):
                kind, *_ = (k for k in (*config_types.kinds(hint), str) if k is not type(None))
                node[name] = config_dict.placeholder(kind)
                node[name] = value
            else:
                node[name] = value
        return node

    return section(Settings()).lock()


def load_config(file: str, overrides: Mapping[str, str]) -> Settings:
    """Reads a config file, applies overrides and validates the result.

    Args:
      file: a Python file that defines `get_config()`, or a JSON file such as a run's config.json.
      overrides: text by dotted field name, such as {"optimizer.learning_rate": "3e-5"}. `None`
        unsets; a tuple is written a,b or ('a', 'b').

    Raises:
      UserError: no such file or field, a value of another type or out of range.
    """
    path = Path(os.path.expanduser(file))
    if not path.is_file():
        raise UserError(f"--config={file}: there is no such file.")
    values = read_json_object(path) if path.suffix == ".json" else _run_python(path)
    _build(Settings, values, "config")  # so that only sections are overridden within
    for name, text in overrides.items():
        *parents, last = name.split(".")
        hint = _find_hint(name)
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = config_types.parse(f"config.{name}", text, hint)
    settings = _build(Settings, values, "config")
    validate(settings)
    return settings


def validate(settings: Settings) -> None:
    """Checks ranges and what fields ask of each other.

    Raises:
      UserError: names the first field that is wrong, its value and what was expected.
    """
    data, train, optimizer = settings.data, settings.train, settings.optimizer

    def check(good: bool, field: str, value: Any, expected: str) -> None:
        if not good:
            raise UserError(f"config.{field} is {value!r}: expected {expected}.")

    check(bool(settings.model.path), "model.path", settings.model.path, "a folder or a hub id")
    check(bool(data.path), "data.path", data.path, "a file, a folder or a hub id of a dataset")
    check(
        len(data.text_columns) in (1, 2), "data.text_columns", data.text_columns, "one or two names"
    )
    check(data.max_length >= 3, "data.max_length", data.max_length, "at least 3 tokens")
    share = data.mask_probability
    check(0 < share < 1, "data.mask_probability", share, "a share above 0 and below 1")
    _validate_answers(settings, check)
    check(data.validation_size > 0, "data.validation_size", data.validation_size, "more than 0")
    check(
        data.test_size is None or data.test_size > 0,
        "data.test_size",
        data.test_size,
        "None or > 0",
    )
    check(
        0 <= optimizer.warmup_fraction <= 1,
        "optimizer.warmup_fraction",
        optimizer.warmup_fraction,
        "a share between 0 and 1",
    )
    for name in ("learning_rate", "weight_decay", "clip_norm", "eps"):
        value = getattr(optimizer, name)
        low = value is None or value > 0 or (value == 0 and name == "weight_decay")
        check(low, f"optimizer.{name}", value, "a positive number")
    decay = optimizer.layer_decay
    good = decay is None or 0 < decay <= 1
    check(good, "optimizer.layer_decay", decay, "None or a factor above 0 and at most 1")
    for name in ("b1", "b2", "momentum"):
        value = getattr(optimizer, name)
        check(0 <= value < 1, f"optimizer.{name}", value, "a number from 0 up to, not with, 1")
    for name in ("num_epochs", "batch_size", "eval_batch_size", "log_every_steps"):
        check(getattr(train, name) >= 1, f"train.{name}", getattr(train, name), "at least 1")
    good = train.num_microbatches >= 1 and train.batch_size % train.num_microbatches == 0
    divisor = f"a number that divides train.batch_size {train.batch_size}"
    check(good, "train.num_microbatches", train.num_microbatches, divisor)
    for name in ("num_steps", "eval_every_steps", "checkpoint_every_steps", "patience"):
        value = getattr(train, name)
        check(value is None or value >= 1, f"train.{name}", value, "None or at least 1")
    for name in ("max_train_examples", "max_eval_examples"):
        value = getattr(data, name)
        check(value is None or value >= 1, f"data.{name}", value, "None or at least 1")
    check(0 <= settings.seed < 2**32, "seed", settings.seed, "0 to 2**32 - 1")
    check(data.split_seed >= 0, "data.split_seed", data.split_seed, "at least 0")
    good = 0 <= data.token_dropout < 1
    check(good, "data.token_dropout", data.token_dropout, "a share from 0 up to, not with, 1")
    _validate_profile(settings, check)
    sizes = {name: getattr(settings.parallel, name) for name in ("data", "fsdp", "tensor")}
    for name, size in sizes.items():
        good = size >= 1 or (size == -1 and [*sizes.values()].count(-1) == 1)
        check(good, f"parallel.{name}", size, "at least 1, or -1 for the rest on one axis alone")
    most = settings.activation_cache.max_memory_bytes
    check(most >= 0, "activation_cache.max_memory_bytes", most, "at least 0")
    augmentation = data.augmentation
    for name in ("rand_augment_num_ops", "mixup_alpha", "cutmix_alpha"):
        value = getattr(augmentation, name)
        check(value >= 0, f"data.augmentation.{name}", value, "at least 0")
    magnitude = augmentation.rand_augment_magnitude
    good = 0 <= magnitude <= 30
    check(good, "data.augmentation.rand_augment_magnitude", magnitude, "0 to 30")


def _validate_answers(settings: Settings, check: Callable[[bool, str, Any, str], None]) -> None:
    data = settings.data
    check(data.doc_stride >= 0, "data.doc_stride", data.doc_stride, "at least 0")
    for name in ("max_answer_length", "n_best"):
        check(getattr(data, name) >= 1, f"data.{name}", getattr(data, name), "at least 1")
    if settings.task == "question_answering":
        check(data.max_length >= 32, "data.max_length", data.max_length, "at least 32 tokens")
        most = f"at most half of max_length {data.max_length}"
        check(data.doc_stride <= data.max_length // 2, "data.doc_stride", data.doc_stride, most)


def _validate_profile(settings: Settings, check: Callable[[bool, str, Any, str], None]) -> None:
    steps, last = settings.profile.steps, settings.train.num_steps
    if steps is None:
        return
    good = len(steps) == 2 and 0 <= steps[0] < steps[1]
    check(good, "profile.steps", steps, "None or START,STOP with 0 <= START < STOP")
    if last is not None:
        check(steps[1] <= last, "profile.steps", steps, f"at most train.num_steps {last}")


def _run_python(path: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("jaxtune_config_file", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: expected a .py file with get_config(), or a .json file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{path} defines no get_config().")
        config = module.get_config()
    except _FILE_ERRORS as error:
        raise UserError(_fault(path, error)) from None
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config() returns a {type(config).__name__}, expected a ConfigDict: change"
            " what jaxtune.run.config.default_config() gives, and return it."
        )
    return config.to_dict()


_FILE_ERRORS = (
    *(AttributeError, LookupError, TypeError, ValueError, ArithmeticError),
    *(NameError, SyntaxError, ImportError, OSError),
)
"""What a mistake in a config file raises."""


def _fault(path: Path, error: Exception) -> str:
    """What is wrong in a config file, and on which line."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    place = f"{path} line {lines[-1]}" if lines else str(path)
    inner: Any = error
    while inner.args and isinstance(inner.args[0], Exception):  # ml_collections wraps a KeyError
        inner = inner.args[0]
    text = " ".join(str(inner.args[0] if isinstance(inner, KeyError) else inner).split())
    unknown = re.match(r'Key "(\w+)" does not exist', text)
    if unknown:  # what follows is the reprs of all other fields
        known = re.findall(r"'(\w+)': ", text)
        return f"{place}: {_unknown('the section', unknown[1], dict.fromkeys(known))}"
    return f"{place}: found an error in the config file: {type(error).__name__}: {text}"


def _find_hint(name: str) -> Any:
    """The type of a dotted field name."""
    kind: Any = Settings
    so_far = "config"
    for part in name.split("."):
        if not dataclasses.is_dataclass(kind):
            raise UserError(f"{so_far} is a value; it has no field {part!r}.")
        hints = config_types.hints(typing.cast(type, kind))
        if part not in hints:
            raise UserError(_unknown(so_far, part, hints))
        so_far, kind = f"{so_far}.{part}", hints[part]
    if dataclasses.is_dataclass(kind):
        fields = ", ".join(config_types.hints(typing.cast(type, kind)))
        raise UserError(f"{so_far} is a section; set one of its fields: {fields}.")
    return kind


def _unknown(section: str, name: str, known: Mapping[str, Any]) -> str:
    return f"{section} has no field {name!r}; it has {', '.join(known)}.{nearest(name, known)}"


def _build(kind: type, values: Mapping[str, Any], section: str) -> Any:
    """A settings dataclass from nested dicts; every name and type is checked."""
    hints = config_types.hints(kind)
    for name in values:
        if name not in hints:
            raise UserError(_unknown(section, name, hints))
    built = {}
    for name, value in values.items():
        field, hint = f"{section}.{name}", hints[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UserError(f"{field} is {value!r}: expected a section.")
            built[name] = _build(typing.cast(type, hint), value, field)
        else:
            built[name] = config_types.convert(field, value, hint)
    return kind(**built)
