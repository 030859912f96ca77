"""Columns to what a model learns from: texts, class indices, regression targets."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources.table import Table, bad_row, column, num_rows, where

_HIDDEN = ("", "-1", "-1.0", "nan")
"""What stands in a label column whose labels are withheld, as the hub's GLUE test splits do."""

_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


def class_names(train: Table, name: str) -> tuple[str, ...]:
    """The classes in the label column `name`, in the order of their indices.

    They are the names that the source declares, or else the distinct values as strings, sorted:
    by value if all are integers, so that 10 follows 9. The order of the rows plays no part.

    Args:
      train: The training table.
      name: The label column.

    Returns:
      At least two distinct names.

    Raises:
      UserError: there is no such column, a row has no label, or there are fewer than two.
    """
    labels = _labels(train, name)
    names = train.class_names.get(name) or sort_labels(set(labels))
    _refuse_targets(train, name, names, len(labels))
    if len(names) < 2:
        raise UserError(
            f"{train.source}: found {len(names)} class in the column {name!r} "
            f"({', '.join(names)}), but expected at least 2. Check config.data.label_column."
        )
    return tuple(names)


class ClassLabels(NamedTuple):
    """The class of each row.

    Attributes:
      indices: into `names`, int32 [n].
      names: the classes of training, then those that only this table has.
      notes: what a person should know of them.
    """

    indices: Int32[np.ndarray, " n"]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def class_labels(
    table: Table, name: str, names: Sequence[str], on_unknown: str = "stop"
) -> ClassLabels:
    """The index of each row's class.

    Where the table itself declares class names, an integer in the column is an index into those,
    and is translated by name: the same class gets the same index even if two files declare their
    classes in different orders.

    Args:
      table: n rows.
      name: The label column.
      names: The classes, from `class_names` of the training table, or those of a model, of which
        LABEL_0, LABEL_1, ... are the numbers too.
      on_unknown: `stop`, or `wrong`: a class that is not in `names` gets an index of its own after
        these, so that whatever is predicted is an error.

    Raises:
      UserError: there is no such column, a row has no label, or one that is not in `names`.
    """
    found = _labels(table, name)
    encoded, known, notes = index_labels(table, name, found, names, on_unknown)
    blanks = count_blanks(table, name)
    if blanks:
        notes = (f"{blanks} labels had white space around them, which was taken off", *notes)
    return ClassLabels(np.array(encoded, np.int32), known, notes)


def encode_classes(table: Table, name: str, names: Sequence[str]) -> Int32[np.ndarray, " n"]:
    """The `indices` of `class_labels`, each in [0, len(names))."""
    return class_labels(table, name, names).indices


def index_labels(
    table: Table, name: str, labels: Sequence[str], names: Sequence[str], on_unknown: str
) -> tuple[list[int], tuple[str, ...], tuple[str, ...]]:
    """The index of each label into the names, these with the unknown ones, and notes.

    Args:
      table: n rows, for messages.
      name: the label column.
      labels: of each row.
      names: as of `class_labels`.
      on_unknown: as of `class_labels`.

    Raises:
      UserError: a label that is not in `names`.
    """
    index = _index(names)
    unknown = Counter(label for label in labels if label not in index)
    if not unknown:
        return [index[label] for label in labels], tuple(names), ()
    told = ", ".join(f"{label[:40]!r} {count}" for label, count in unknown.most_common(5))
    told += f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    total = f"{unknown.total()} of {len(labels)} labels are of classes that training does not have"
    if on_unknown == "stop":
        first = next(i for i, label in enumerate(labels) if label not in index)
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        raise UserError(
            f"{where(table, first)}: found the label {labels[first][:80]!r} in the column {name!r},"
            " but expected one of the classes of the training data:"
            f" {', '.join(names[:20])}{more}.{nearest(labels[first], names)} {total}: {told}."
            " Correct or remove the rows, or set config.data.on_unknown_class=wrong, which scores"
            f" them as errors.{_as_none(labels[first])}"
        )
    index |= {label: len(names) + i for i, label in enumerate(unknown)}
    note = f"{total} ({told}): each counts as an error, and the loss leaves it out"
    return [index[label] for label in labels], (*names, *unknown), (note,)


_NONE = ("-1", "-")
"""What stands for no label in the data of GLUE and of SNLI."""


def _as_none(label: str) -> str:
    told = f" Where {label} stands for no label, set config.data.no_label={label}."
    return told if label in _NONE else ""


def _index(names: Sequence[str]) -> dict[str, int]:
    """Where each class stands; LABEL_0, LABEL_1, ... and the numbers are the same classes."""
    numbers = [str(i) for i in range(len(names))]
    unnamed = [f"LABEL_{i}" for i in numbers]
    aliases = {tuple(numbers): unnamed, tuple(unnamed): numbers}.get(tuple(names), [])
    spellings = (aliases, [name.strip() for name in names], names)
    return {label: i for labels in spellings for i, label in enumerate(labels)}


def encode_targets(table: Table, name: str) -> Float32[np.ndarray, " n"]:
    """The regression target of each row.

    Args:
      table: n rows.
      name: The column of targets: numbers, or strings that hold one, in any unit.

    Returns:
      float32 [n], all finite.

    Raises:
      UserError: there is no such column, or a row's value is not a finite number.
    """
    targets = np.empty(num_rows(table), np.float32)
    limit = float(np.finfo(np.float32).max)  # A float64 beyond it would become infinite.
    for i, value in enumerate(column(table, name)):
        number = number_of(value)
        if abs(number) <= limit:
            targets[i] = number
        else:
            raise bad_row(
                table,
                i,
                f"found {shown(value)} in the column {name!r}, but expected a "
                "finite number to train a regression on. Correct or remove the row, or check "
                "config.data.label_column.",
            )
    return targets


def has_targets(table: Table, name: str) -> bool:
    """Whether a table comes with its labels.

    False if there is no column `name`, or if all its values are None, NaN, empty or -1: that is
    how test sets withhold their labels.

    Args:
      table: n rows.
      name: The label column, of classes or of regression targets.
    """
    if name not in table.columns:
        return False
    hidden = (
        value is None or (is_plain(value) and str(value).strip().lower() in _HIDDEN)
        for value in table.columns[name]
    )
    return not all(hidden)


def text_rows(table: Table, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts of each row, unchanged.

    Args:
      table: n rows.
      columns: One text column, or two for pairs.

    Returns:
      n tuples of len(columns) strings.

    Raises:
      UserError: not one or two columns, no such column, or a value that is not a string with at
        least one character other than white space.
    """
    if len(columns) not in (1, 2):
        raise UserError(
            f"config.data.text_columns: found {len(columns)} columns ({', '.join(columns)}), but "
            "expected one, or two for pairs of texts."
        )
    values = [column(table, name) for name in columns]
    for name, texts in zip(columns, values, strict=True):
        for i, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise bad_row(
                    table,
                    i,
                    f"found {shown(text)} in the column {name!r}, but expected "
                    "a text that is not empty. Fill in or remove the row, or check "
                    "config.data.text_columns.",
                )
    return list(zip(*values, strict=True))


def is_blank(value: Any) -> bool:
    """Whether there is no text: nothing, NaN or white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _labels(table: Table, name: str) -> list[str]:
    """The label of each row as the name of its class."""
    declared, values = table.class_names.get(name, ()), column(table, name)
    if {*map(type, values)} == {str}:
        known = {value: label_of(value, declared) for value in {*values}}
        if all(known.values()):
            return [known[value] for value in values]
    labels = []
    for i, value in enumerate(values):
        label = label_of(value, declared)
        if not label:
            raise bad_row(
                table,
                i,
                f"found {shown(value)} in the label column {name!r}, but "
                "expected a string, an integer or a boolean. Fill in or remove the row, or check "
                "config.data.label_column.",
            )
        labels.append(label)
    return labels


def label_of(value: Any, declared: tuple[str, ...]) -> str:
    """The name of a class, or an empty string where the value cannot be one."""
    if isinstance(value, str):
        return value.strip()
    if not is_plain(value) or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    # A pandas column with a gap somewhere is written as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and 0 <= value < len(declared):
        return declared[value]
    return str(value)


def _refuse_targets(table: Table, name: str, names: Sequence[str], num_rows: int) -> None:
    """Refuses measured numbers, of which hardly two are the same, as classes."""
    if 2 * len(names) > max(num_rows, 40) and are_measures(names):
        raise UserError(
            f"{table.source}: found {len(names)} different numbers in {num_rows} rows of the label"
            f" column {name!r}, such as {names[0]}, but expected classes. Set"
            " config.task=regression to predict numbers, or check config.data.label_column."
        )


def are_measures(names: Sequence[str]) -> bool:
    """Whether all names are numbers, and not all of them whole ones."""
    numbers = [number_of(name) for name in names]
    return all(map(math.isfinite, numbers)) and not all(n.is_integer() for n in numbers)


def sort_labels(labels: set[str]) -> list[str]:
    """Labels in the order of their values if all are integers, else of their characters."""
    if all(_INTEGER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def number_of(value: Any) -> float:
    """The value as a float, or NaN where it is not a number."""
    if isinstance(value, bool) or not is_plain(value) or "_" in str(value):
        return math.nan  # float() takes True and "1_0", which no data file means as numbers.
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def count_blanks(table: Table, name: str) -> int:
    """How many labels have white space around them."""
    return sum(isinstance(v, str) and v != v.strip() for v in table.columns[name])


def is_plain(value: Any) -> bool:
    """True for a single string, number or boolean."""
    return isinstance(value, str | bool | int | float)


def shown(value: Any) -> str:
    """The value for a message, cut short."""
    return "nothing" if value is None else repr(value)[:80]
