"""What every setting is called, admits and means, read from the settings themselves."""

import dataclasses
import inspect
import re
import typing
from typing import Any, NamedTuple

from jaxtune.run import config_types
from jaxtune.settings import Settings
from jaxtune.settings.fields import is_flat, plain


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


def describe(kind: Any = Settings, prefix: str = "") -> list[Setting]:
    """All settings, in the order of their sections.

    Args:
      kind: a dataclass of settings.
      prefix: of the names, such as `data.`.
    """
    found, meanings = [], meanings_of(kind)
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(plain(hint)):
            found += describe(plain(hint), prefix if is_flat(hint) else f"{prefix}{name}.")
            continue
        words, default = config_types.spell_both(hint), _typed(getattr(kind, name))
        found.append(Setting(f"{prefix}{name}", words, default, meanings.get(name, "")))
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
