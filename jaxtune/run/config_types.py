"""What values a setting admits: read from text, checked, and said in words."""

import ast
import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any, Literal

from annotated_types import DocInfo, Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen

from jaxtune.core.errors import UserError, nearest
from jaxtune.settings.fields import Code, is_code, plain

_WORDS = {
    **{int: "a whole number", float: "a number", str: "text", bool: "true or false"},
    Code: "MODULE:FUNCTION",
    tuple[str, ...]: "names joined by commas",
    tuple[int, ...]: "whole numbers joined by commas",
}

_LIMITS: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    Ge: ("at least {}", lambda value, limit: value >= limit),
    Gt: ("above {}", lambda value, limit: value > limit),
    Le: ("at most {}", lambda value, limit: value <= limit),
    Lt: ("below {}", lambda value, limit: value < limit),
    MinLen: ("at least {} of them", lambda value, limit: len(value) >= limit),
    MaxLen: ("at most {} of them", lambda value, limit: len(value) <= limit),
}


def options(hint: Any) -> tuple[str, ...]:
    """The words that a type admits, if it names them."""
    literals = [kind for kind in _members(hint) if typing.get_origin(kind) is Literal]
    return tuple(word for literal in literals for word in typing.get_args(literal))


def kinds(hint: Any) -> list[type]:
    """The classes of the values that a type admits, but for words that it names."""
    members = [kind for kind in _members(hint) if typing.get_origin(kind) is not Literal]
    return [str if kind is Code else typing.get_origin(kind) or kind for kind in members]


def spell(hint: Any) -> str:
    """A type in words, without its range: `a whole number or None`."""
    return " or ".join(_spell_members(hint) + ["None"] * _may_be_unset(hint))


def spell_range(hint: Any) -> str:
    """A range in words, such as `at least 0 and below 1`; empty where there is none."""
    marks = [*_marks(hint)]
    said = [mark.documentation for mark in marks if isinstance(mark, DocInfo)]
    limits = [_LIMITS[type(mark)][0].format(*_limit(mark)) for mark in marks if _is_limit(mark)]
    return " ".join(said) or " and ".join(limits)


def spell_both(hint: Any) -> str:
    """A type and its range: `a whole number, at least 1, or None`."""
    limits = spell_range(hint)
    if not limits:
        return spell(hint)
    return ", ".join([*_spell_members(hint), limits, *["or None"] * _may_be_unset(hint)])


def parse(field: str, text: str, hint: Any) -> Any:
    """Text from the command line as a value of the field's type.

    Raises:
      UserError: it is none.
    """
    admitted = kinds(hint)
    if _may_be_unset(hint) and text.lower() in ("none", "null"):
        return None
    if bool in admitted and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in admitted:
            try:
                return kind(text)
            except ValueError:
                continue
    if tuple in admitted:
        try:
            value = ast.literal_eval(text)
            return (value,) if isinstance(value, str) else tuple(value)
        except (ValueError, SyntaxError, TypeError):
            return tuple(part.strip() for part in text.split(",") if part.strip())
    if str in admitted or options(hint):
        return text
    raise UserError(f"{field} is {text!r}: expected {spell(hint)}.")


def convert(field: str, value: Any, hint: Any) -> Any:
    """A value from a file as one of the field's type, in range or not.

    Raises:
      UserError: it is of another type.
    """
    admitted, words = kinds(hint), options(hint)
    named = Code in _members(hint) and isinstance(value, str) and is_code(value)
    if named:
        return value
    if (words or Code in _members(hint)) and not (value is None and _may_be_unset(hint)):
        if value not in words:
            found = f"{field} is {value!r}: expected {spell(hint)}."
            raise UserError(found + nearest(str(value), words))
        return value
    if isinstance(value, list):  # JSON has no tuples
        value = tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in admitted:
        value = float(value) if abs(value) < 2**1023 else math.inf
    good = isinstance(value, tuple(admitted)) and not (
        isinstance(value, bool) and bool not in admitted
    )
    if good and isinstance(value, tuple):
        (items,) = (typing.get_args(kind)[0] for kind in _members(hint) if typing.get_args(kind))
        good = all(type(item) is items for item in value)
    if good and isinstance(value, float):
        good = math.isfinite(value)
    if not good:
        raise UserError(f"{field} is {value!r}: expected {spell(hint)}.")
    return value


def check_range(field: str, value: Any, hint: Any) -> None:
    """Refuses a value that the annotations of its type exclude; None is in every range.

    Raises:
      UserError: says what was expected.
    """
    limits = [mark for mark in _marks(hint) if _is_limit(mark)]
    if value is None or all(_LIMITS[type(mark)][1](value, *_limit(mark)) for mark in limits):
        return
    expected = "None or " * _may_be_unset(hint) + spell_range(hint)
    raise UserError(f"{field} is {value!r}: expected {expected}.")


def _may_be_unset(hint: Any) -> bool:
    return type(None) in _members(hint)


def _spell_members(hint: Any) -> list[str]:
    words = options(hint)
    named = [_WORDS[kind] for kind in _members(hint) if kind in _WORDS]
    return [f"one of {', '.join(words)}"] * bool(words) + named


def _members(hint: Any) -> list[Any]:
    """The types that a union joins, or the type alone, without annotations."""
    inner = plain(hint)
    if typing.get_origin(inner) not in (typing.Union, UnionType):
        return [inner]
    return [member for arg in typing.get_args(inner) for member in _members(arg)]


def _marks(hint: Any) -> Iterator[Any]:
    """What is annotated to a type, or to a member of a union."""
    for mark in getattr(hint, "__metadata__", ()):
        yield from mark if isinstance(mark, GroupedMetadata) else (mark,)
    if typing.get_origin(plain(hint)) in (typing.Union, UnionType):
        for arg in typing.get_args(plain(hint)):
            yield from _marks(arg)


def _is_limit(mark: Any) -> bool:
    return type(mark) in _LIMITS


def _limit(mark: Any) -> tuple[Any, ...]:
    return dataclasses.astuple(mark)
