"""What every setting is called, admits and means, read from the settings themselves."""

import dataclasses
import inspect
import re
import typing
from typing import Any, NamedTuple

from jaxtune.run import config_types
from jaxtune.settings import Settings


class Setting(NamedTuple):
    """One setting, for a person to read.

    Attributes:
      name: as it is typed after `--config.`, such as `data.max_length`.
      kind: what it admits, such as `a whole number, at least 3`.
      default: as it would be typed, such as `128`, `None` or `text,title`.
      meaning: from the docstring, on one line.
    """

    name: str
    kind: str
    default: str
    meaning: str


def describe(kind: type = Settings, prefix: str = "") -> list[Setting]:
    """All settings, in the order of their sections.

    Args:
      kind: a dataclass of settings.
      prefix: of the names, such as `data.`.
    """
    found, meanings = [], meanings_of(kind)
    for field in dataclasses.fields(kind):
        hint, name = config_types.hints(kind)[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            found += describe(typing.cast(type, hint), f"{name}.")
            continue
        words, meaning = config_types.spell_both(hint), meanings.get(field.name, "")
        found.append(Setting(name, words, _typed(field.default), meaning))
    return found


def meanings_of(kind: type) -> dict[str, str]:
    """What the `Attributes:` of a class's docstring say of each, on one line."""
    _, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _typed(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, tuple) and value:
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
