"""Columns to what a model learns from: texts, class indices, regression targets."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

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
    names = train.class_names.get(name) or _sorted_labels(set(labels))
    if len(names) < 2:
        raise UserError(
            f"{train.source}: found {len(names)} class in the column {name!r} "
            f"({', '.join(names)}), but expected at least 2. Check config.data.label_column."
        )
    return tuple(names)


def encode_classes(table: Table, name: str, names: Sequence[str]) -> Int32[np.ndarray, " n"]:
    """The index into `names` of each row's label.

    Where the table itself declares class names, an integer in the column is an index into those,
    and is translated by name: the same class gets the same index even if two files declare their
    classes in different orders.

    Args:
      table: n rows.
      name: The label column.
      names: The classes, from `class_names` of the training table.

    Returns:
      int32 [n], each in [0, len(names)).

    Raises:
      UserError: there is no such column, a row has no label, or one that is not in `names`.
    """
    index = {class_name: i for i, class_name in enumerate(names)}
    encoded = np.empty(num_rows(table), np.int32)
    for i, label in enumerate(_labels(table, name)):
        if label not in index:
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise UserError(
                f"{where(table, i)}: found the label {label!r} in the column {name!r}, but "
                f"expected one of the classes of the training data: {', '.join(names[:20])}{more}."
                f"{nearest(label, names)} Correct or remove the row, or add rows of this class to "
                "the training data.",
            )
        encoded[i] = index[label]
    return encoded


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
        number = _number(value)
        if abs(number) <= limit:
            targets[i] = number
        else:
            raise bad_row(
                table,
                i,
                f"found {_shown(value)} in the column {name!r}, but expected a "
                "finite number to train a regression on. Correct or remove the row, or check "
                "config.data.label_column.",
            )
    return targets


def set_names(train: Table, name: str) -> tuple[str, ...]:
    """The classes in a column whose values are lists of labels, as `class_names` orders them.

    Raises:
      UserError: no such column, a value that is no list of labels, or no class at all.
    """
    names = train.class_names.get(name) or _sorted_labels(
        {label for labels in _label_sets(train, name) for label in labels}
    )
    if not names:
        raise UserError(
            f"{train.source}: no row has a class in the column {name!r}: expected lists such as "
            '["news", "sport"]. Check config.data.label_column.'
        )
    return tuple(names)


def encode_sets(table: Table, name: str, names: Sequence[str]) -> Float32[np.ndarray, "n c"]:
    """1 where a row has a class, 0 where not.

    Args:
      table: n rows.
      name: a column of lists, of class names or of indices into those that the source declares; a
        string is a list written as JSON, or names joined by `|`.
      names: c classes, from `set_names` of the training table.

    Raises:
      UserError: a value that is no list of labels, or a class that is not in `names`.
    """
    index = {class_name: i for i, class_name in enumerate(names)}
    encoded = np.zeros((num_rows(table), len(names)), np.float32)
    for i, labels in enumerate(_label_sets(table, name)):
        for label in labels:
            if label not in index:
                raise UserError(
                    f"{where(table, i)}: found the label {label!r} in the column {name!r}, but "
                    "expected only classes of the training data: "
                    f"{', '.join(names[:20])}.{nearest(label, names)} Correct or remove the row.",
                )
            encoded[i, index[label]] = 1.0
    return encoded


def encode_flags(table: Table, columns: Sequence[str]) -> Float32[np.ndarray, "n c"]:
    """One column for each class, with 1 (true) where it applies and 0 (false) where not.

    Raises:
      UserError: a value that is neither.
    """
    flags = {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0, "1.0": 1.0, "0.0": 0.0}
    encoded = np.zeros((num_rows(table), len(columns)), np.float32)
    for c, name in enumerate(columns):
        for i, value in enumerate(column(table, name)):
            flag = flags.get(str(value).strip().lower()) if _is_plain(value) else None
            if flag is None:
                raise bad_row(
                    table,
                    i,
                    f"found {_shown(value)} in the column {name!r}, but "
                    "expected 1 where the class applies and 0 where not. Correct or remove the "
                    "row, or check config.data.label_columns.",
                )
            encoded[i, c] = flag
    return encoded


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
        value is None or (_is_plain(value) and str(value).strip().lower() in _HIDDEN)
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
                    f"found {_shown(text)} in the column {name!r}, but expected "
                    "a text that is not empty. Fill in or remove the row, or check "
                    "config.data.text_columns.",
                )
    return list(zip(*values, strict=True))


def _labels(table: Table, name: str) -> list[str]:
    """The label of each row as the name of its class."""
    declared = table.class_names.get(name, ())
    labels = []
    for i, value in enumerate(column(table, name)):
        label = _label(value, declared)
        if not label.strip():
            raise bad_row(
                table,
                i,
                f"found {_shown(value)} in the label column {name!r}, but "
                "expected a string, an integer or a boolean. Fill in or remove the row, or check "
                "config.data.label_column.",
            )
        labels.append(label)
    return labels


def _label_sets(table: Table, name: str) -> list[list[str]]:
    """The labels of each row; a row may have none."""
    declared = table.class_names.get(name, ())
    found = []
    for i, value in enumerate(column(table, name)):
        items = value
        if isinstance(value, str):
            text = value.strip()
            try:
                items = json.loads(text) if text.startswith("[") else text.split("|")
            except ValueError:
                items = None
            items = [] if text == "" else items
        labels = [_label(item, declared) for item in items] if isinstance(items, list) else [""]
        if any(not label.strip() for label in labels):
            raise bad_row(
                table,
                i,
                f"found {_shown(value)} in the label column {name!r}, but "
                'expected a list of class names, such as ["news", "sport"] or news|sport. Correct '
                "the row, or check config.data.label_column.",
            )
        found.append(list(dict.fromkeys(label.strip() for label in labels)))
    return found


def _label(value: Any, declared: tuple[str, ...]) -> str:
    """The name of a class, or an empty string where the value cannot be one."""
    if isinstance(value, str):
        return value
    if not _is_plain(value) or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    # A pandas column with a gap somewhere is written as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and 0 <= value < len(declared):
        return declared[value]
    return str(value)


def _sorted_labels(labels: set[str]) -> list[str]:
    """Labels in the order of their values if all are integers, else of their characters."""
    if all(_INTEGER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _number(value: Any) -> float:
    """The value as a float, or NaN where it is not a number."""
    if isinstance(value, bool) or not _is_plain(value) or "_" in str(value):
        return math.nan  # float() takes True and "1_0", which no data file means as numbers.
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _is_plain(value: Any) -> bool:
    """True for a single string, number or boolean."""
    return isinstance(value, str | bool | int | float)


def _shown(value: Any) -> str:
    """The value for a message, cut short."""
    return "nothing" if value is None else repr(value)[:80]
