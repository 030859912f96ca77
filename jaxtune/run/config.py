"""Config files, command-line overrides, and their validation, before anything is loaded.

A config is an `ml_collections.ConfigDict` with the fields of `jaxtune.settings.Settings`; its
file defines `get_config()`. A run's own `config.json` is a config file too.
"""

import dataclasses
import importlib.util
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxtune.core.errors import UserError, find_meant, nearest
from jaxtune.io.json_files import read_json_object
from jaxtune.run import config_types
from jaxtune.run.config_files import find_config
from jaxtune.run.config_reference import describe
from jaxtune.run.config_rules import rules
from jaxtune.run.own_code import named_code
from jaxtune.settings import Settings
from jaxtune.settings.dicts import from_dict, to_dict, typed_hints


def default_config() -> ConfigDict:
    """A locked ConfigDict with every setting at its default; unset ones keep their type."""

    def section(kind: Any, values: Mapping[str, Any]) -> ConfigDict:
        node = ConfigDict()
        for name, hint in typed_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                node[name] = section(hint, values[name])
                continue
            kinds = config_types.kinds(hint)
            if type(None) in kinds:
                kind_if_set = next(k for k in (*kinds, str) if k is not type(None))
                node[name] = config_dict.placeholder(kind_if_set)
            node[name] = values[name]
        return node

    return section(Settings, to_dict(Settings())).lock()


def load_config(file: str, overrides: Mapping[str, str] = {}) -> Settings:
    """Reads a config file, applies overrides and validates the result.

    Args:
      file: a Python file that defines `get_config()`, a JSON file such as a run's config.json, or
        the name of a config that comes with jaxtune, such as `agnews`.
      overrides: text by dotted field name, such as {"optimizer.learning_rate": "3e-5"}. `None`
        unsets; a tuple is written a,b or ('a', 'b').

    Raises:
      UserError: no such file or field, a value of another type or out of range.
    """
    path = find_config(file)
    if path.suffix != ".json":
        return settings_of(_run_python(path), overrides)
    settings = read_settings(path, overrides)
    named = {SHORT.get(name, name) for name in overrides}
    for field, names in named_code(settings).items():
        if field not in named:  # a file of data runs no code
            raise UserError(
                f"{path} names code to import, config.{field} {', '.join(names)}: if you trust it,"
                f" add --config.{field}={','.join(names)}."
            )
    return settings


def read_settings(file: Path, overrides: Mapping[str, str] = {}) -> Settings:
    """The settings in a run's config.json, to look at: what runs them calls `load_config`.

    Raises:
      UserError: as `settings_of`, or a file that is none.
    """
    return settings_of(read_json_object(file), overrides)


def settings_of(values: dict[str, Any], overrides: Mapping[str, str] = {}) -> Settings:
    """Settings from nested dicts of what was set, with overrides as `load_config` takes them.

    Raises:
      UserError: no such field, a value of another type or out of range.
    """
    _convert(Settings, values, "config")  # so that only sections are overridden within
    task = values.get("task", Settings().task)
    if overrides.get("task", task) != task:  # the file's metric is of the file's task
        values.get("train", {}).pop("best_metric", None)
    for name, text in overrides.items():
        name = SHORT.get(name, name)
        *parents, last = name.split(".")
        hint = find_hint(name)
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = config_types.parse(f"config.{name}", text, hint)
    settings = from_dict(Settings, _convert(Settings, values, "config"))
    validate(settings)
    return settings


SHORT = {
    **{"tuning": "tuning.name", "optimizer": "optimizer.name", "loss": "loss.function"},
    "distillation": "distillation.teacher",
}
"""Sections that may be typed for the field that says which one."""


def validate(settings: Settings) -> None:
    """Checks the range of each field, and what fields ask of each other.

    Raises:
      UserError: names the first field that is wrong, its value and what was expected.
    """
    _check_ranges(Settings, to_dict(settings), "config")
    for good, field, value, expected in rules(settings):
        if not good:
            raise UserError(f"config.{field} is {value!r}: expected {expected}.")


def _check_ranges(kind: Any, values: Mapping[str, Any], place: str) -> None:
    for name, hint in typed_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            _check_ranges(hint, values[name], f"{place}.{name}")
        else:
            config_types.check_range(f"{place}.{name}", values[name], hint)


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
            " what jaxtune.default_config() gives, and return it."
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


def find_hint(name: str) -> Any:
    """The type of a dotted field name.

    Raises:
      UserError: there is no such field; names the nearest.
    """
    kind: Any = Settings
    so_far = "config"
    for part in name.split("."):
        if not dataclasses.is_dataclass(kind):
            raise UserError(f"{so_far} is a value; it has no field {part!r}.")
        hints = typed_hints(kind)
        if part not in hints:
            raise UserError(_unknown(so_far, part, hints))
        so_far, kind = f"{so_far}.{part}", hints[part]
    if dataclasses.is_dataclass(kind):
        fields = ", ".join(typed_hints(kind))
        raise UserError(f"{so_far} is a section; set one of its fields: {fields}.")
    return kind


def _unknown(section: str, name: str, known: Mapping[str, Any]) -> str:
    near = nearest(name, find_meant(name, known)) or _elsewhere(name) or nearest(name, known)
    return f"{section} has no field {name!r}; it has {', '.join(known)}.{near}"


def _elsewhere(name: str) -> str:
    """The settings of any section that are called so, or that others call so."""
    settings = [setting.name for setting in describe()]
    meant = find_meant(name, {setting.rpartition(".")[2] for setting in settings})
    found = [f"config.{s}" for s in settings if s.rpartition(".")[2] in meant]
    return f" Nearest: {', '.join(found[:3])}." if found else ""


def _convert(kind: Any, values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Nested dicts of values of the fields' types; every name and type is checked."""
    hints, found = typed_hints(kind), {}
    for name in values:
        if name not in hints:
            raise UserError(_unknown(section, name, hints))
    for name, value in values.items():
        field, hint = f"{section}.{name}", hints[name]
        if not dataclasses.is_dataclass(hint):
            found[name] = config_types.convert(field, value, hint)
        elif isinstance(value, Mapping):
            found[name] = _convert(hint, value, field)
        else:
            raise UserError(f"{field} is {value!r}: expected a section.")
    return found
