"""Reading a Hugging Face `config.json` into a frozen dataclass, with every field checked."""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from jaxtune.core.errors import UserError, nearest
from jaxtune.models.activations import ACTIVATIONS

Config = TypeVar("Config")

_EXPECTED = {
    str: "text",
    bool: "true or false",
    int: "a whole number from {least} to {most}",
    float: "a number",
    tuple: "a list of whole numbers from 1",
}
_MOST = 2**31 - 1  # what an int32 holds
_MOST_LAYERS = 1_000  # each takes time to trace


def read_fields(
    kind: type[Config],
    hf_config: Mapping[str, Any],
    source: str,
    *,
    activation: str,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """Fills a dataclass whose fields are those of a `config.json`; absent or null ones keep theirs.

    Args:
      kind: a dataclass; its fields are str, bool, int (from 1, or from 0 where the name ends in
        `_id`), float, or tuple (of int), and may be None.
      hf_config: the parsed file.
      source: its path, for messages.
      activation: the field that names the activation.
      aliases: other spellings in the file, each of a field, before whose own it goes.

    Raises:
      UserError: a value of the wrong type, or an activation that jaxtune does not have.
    """
    own = {field: hf_config[name] for name, field in aliases.items() if name in hf_config}
    hf_config = {**hf_config, **own}
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        value = hf_config.get(field.name)
        if value is None:
            continue
        wanted = _kind(hints[field.name])
        least = 0 if field.name.endswith("_id") else 1
        most = _MOST_LAYERS if re.search("layers?$|depths", field.name) else _MOST
        if not _fits(value, wanted, least, most):
            expected, shown = _EXPECTED[wanted].format(least=least, most=most), repr(value)[:80]
            raise UserError(f"{source}: {field.name} is {shown}, expected {expected}.")
        values[field.name] = tuple(value) if wanted is tuple else value
    config = kind(**values)
    name = getattr(config, activation)
    if name not in ACTIVATIONS:
        raise UserError(
            f"{source}: {activation} is {name!r}, expected one of {', '.join(ACTIVATIONS)}."
            f"{nearest(name, ACTIVATIONS)}"
        )
    return config


def check_heads(width: int, num_heads: int, source: str) -> None:
    """Refuses a width that the heads of attention do not divide."""
    if width % num_heads:
        raise UserError(
            f"{source}: the hidden size {width} is not a multiple of the {num_heads} attention"
            " heads."
        )


def check_tied(config: Any, family: str) -> None:
    """Refuses an output layer of a language model that is a matrix of its own.

    Args:
      config: with `tie_word_embeddings`.
      family: as a person calls it, for messages.
    """
    if not config.tie_word_embeddings:
        raise UserError(
            "config.json: tie_word_embeddings is False, which is not supported for language"
            f" modelling: the output layer of jaxtune's {family} is the word embeddings."
        )


def check_defaults(
    hf_config: Mapping[str, Any], source: str, defaults: Mapping[str, Any], family: str
) -> None:
    """Refuses variants that are computed differently: each field must be absent, null or as here.

    Args:
      hf_config: the parsed file.
      source: its path, for messages.
      defaults: the one supported value of each field.
      family: as a person calls it, for messages.
    """
    for name, value in defaults.items():
        found = hf_config.get(name, value)
        if found not in (None, value):
            raise UserError(
                f"{source}: {name} is {repr(found)[:80]}, which is not supported: jaxtune's"
                f" {family} has {value!r}."
            )


def _kind(hint: Any) -> Any:
    """The type behind `T | None` and `tuple[int, ...]`."""
    is_union = typing.get_origin(hint) is types.UnionType
    (kind,) = set(typing.get_args(hint) if is_union else [hint]) - {type(None)}
    return typing.get_origin(kind) or kind


def _fits(value: Any, wanted: type, least: int = 1, most: int = _MOST) -> bool:
    if wanted is bool or isinstance(value, bool):
        return wanted is bool and isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and least <= value <= most
    if wanted is tuple:
        items = value if isinstance(value, list) else []
        return bool(items) and all(_fits(item, int, most=most) for item in items)
    if wanted is float:
        return isinstance(value, int | float) and abs(value) <= _MOST
    return isinstance(value, wanted)
