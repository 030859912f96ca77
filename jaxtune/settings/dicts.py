"""Settings as nested dicts, by the names that a person types: of flat groups, those within."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxtune.settings.fields import is_flat, plain

_Settings = TypeVar("_Settings")


def typed_hints(kind: Any) -> dict[str, Any]:
    """The type of each field of a dataclass, by the name that is typed; sections are one each."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        found |= typed_hints(plain(hint)) if is_flat(hint) else {name: hint}
    return found


def to_dict(section: Any) -> dict[str, Any]:
    """The values of a dataclass of settings; of a section within it, a dict of these."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(type(section), include_extras=True).items():
        value = getattr(section, name)
        inner = to_dict(value) if dataclasses.is_dataclass(value) else value
        found |= inner if is_flat(hint) else {name: inner}
    return found


def from_dict(kind: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    """A dataclass of settings from what `to_dict` gives, or a part of it; the rest is as ever.

    Raises:
      TypeError: a name that the dataclass has not.
    """
    unknown = values.keys() - typed_hints(kind).keys()
    if unknown:
        raise TypeError(f"{kind.__name__} has no fields {sorted(unknown)}.")
    fields: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if is_flat(hint):
            own = {key: values[key] for key in typed_hints(plain(hint)) if key in values}
            fields[name] = from_dict(plain(hint), own)
        elif name in values:
            value = values[name]
            fields[name] = from_dict(hint, value) if isinstance(value, Mapping) else value
    return kind(**fields)


def to_json(settings: Any) -> str:
    """The resolved settings, as a run's config.json holds them."""
    return json.dumps(to_dict(settings), indent=2) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two nested dicts differ, as `a.b was 1, is 2`."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before!r}, is {after!r}")
    return found
