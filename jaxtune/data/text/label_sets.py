"""Columns to any number of classes a row: lists of names, joined names, flags, multi-hot rows."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources.class_sets import ClassSets, of_pairs
from jaxtune.data.sources.table import Table, bad_row, column, num_rows, where
from jaxtune.data.text import labels
from jaxtune.settings.data import ColumnSettings

_FLAGS = {"1": 1.0, "true": 1.0, "1.0": 1.0, "0": 0.0, "false": 0.0, "0.0": 0.0}
_SETTING = "config.data.label_lists"

_Lists = list[list[Any] | None]
"""The items of each row; None where its value is no list of labels."""


class SetLabels(NamedTuple):
    """The classes of each row.

    Attributes:
      sets: of n rows and c classes.
      names: c classes: those of training, then those that only this table has.
      notes: what a person should know of them.
    """

    sets: ClassSets
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_sets(tables: Mapping[str, Table], columns: ColumnSettings) -> dict[str, Table]:
    """The tables with their label column as tuples of class names, whatever it held.

    A value is a list, a list as JSON, or names joined by the separator; a missing one is an empty
    list. Of multi-hot lists, with 0 or 1 for each class, the classes are the names that the source
    declares, or else the numbers from 0. A value that is no list of labels stays as it is: those
    who read the column refuse it.

    Args:
      tables: by split; one without labels stays as it is.
      columns: the label column, the separator, and what its lists are.

    Raises:
      UserError: lists of 0 and 1 that may be either.
    """
    name = columns.label_column
    labelled = {split: table for split, table in tables.items() if labels.has_targets(table, name)}
    lists: dict[str, _Lists] = {
        split: [_items(value, columns.label_separator) for value in table.columns[name]]
        for split, table in labelled.items()
    }
    hot = _are_multi_hot(labelled, lists, columns)
    width = max((len(items or ()) for part in lists.values() for items in part), default=0)
    found = dict(tables)
    for split, table in labelled.items():
        names = table.class_names.get(name, ())
        names = names or tuple(map(str, range(width if hot else 0)))
        values = [
            _raw(value) if items is None else _names_of(items, names, hot)
            for value, items in zip(table.columns[name], lists[split], strict=True)
        ]
        found[split] = table._replace(
            columns=table.columns | {name: values},
            class_names=table.class_names | ({name: names} if names else {}),
        )
    return found


def set_names(train: Table, name: str) -> tuple[str, ...]:
    """The classes in a column of lists, as `labels.class_names` orders them.

    Args:
      train: from `read_sets`.
      name: the label column.

    Raises:
      UserError: no such column, a value that is no list of labels, or no class at all.
    """
    found = {label for row in _rows(train, name) for label in row}
    names = train.class_names.get(name) or labels.sort_labels(found)
    if not names:
        raise UserError(
            f"{train.source}: no row has a class in the column {name!r}: expected lists such as "
            '["news", "sport"]. Check config.data.label_column.'
        )
    return tuple(names)


def encode_sets(
    table: Table, name: str, names: Sequence[str], on_unknown: str = "stop"
) -> SetLabels:
    """The classes that each row has.

    Args:
      table: n rows, from `read_sets`.
      name: the label column.
      names: classes, from `set_names` of the training table, or those of a model: where the table
        only numbers its classes, and there are as many, their order decides.
      on_unknown: as of `labels.class_labels`; an unknown class has a column of its own.

    Raises:
      UserError: a value that is no list of labels, or a class that is not in `names`.
    """
    own = table.class_names.get(name, ())
    numbered = own == tuple(map(str, range(len(names))))
    spelled = dict(zip(own, names, strict=True)) if numbered else {}
    rows = [[str(spelled.get(label, label)) for label in row] for row in _rows(table, name)]
    counts = [len(row) for row in rows]
    places = np.repeat(np.arange(len(rows)), counts).tolist()
    flat = [label for row in rows for label in row]
    lines = table._replace(
        rows=[table.rows[i] for i in places],
        files=[table.files[i] for i in places] if table.files else (),
    )
    indices, known, notes = labels.index_labels(lines, name, flat, names, on_unknown)
    sets = of_pairs(np.array(places), np.array(indices), len(rows), len(known))
    return SetLabels(sets, known, notes)


def encode_columns(table: Table, columns: Sequence[str], names: Sequence[str]) -> ClassSets:
    """The classes of each row, from a column for each class: 1 (true) where it applies, else 0.

    Args:
      table: n rows.
      columns: of flags, each named as its class.
      names: c classes in the order that is wanted; those without a column apply to no row. Where
        they are LABEL_0, LABEL_1, ... the columns are in that order.

    Raises:
      UserError: a value that is no flag, or a column that is none of the classes.
    """
    if tuple(names) == tuple(f"LABEL_{i}" for i in range(len(columns))):
        names = columns
    rows, classes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for name in columns:
        if name not in names:
            raise UserError(
                f"config.data.label_columns has {name!r}, but the model's classes are"
                f" {', '.join(names[:20])}.{nearest(name, names)}"
            )
        rows.append(np.flatnonzero(_flags(table, name)))
        classes.append(np.full(len(rows[-1]), names.index(name)))
    return of_pairs(np.concatenate(rows), np.concatenate(classes), num_rows(table), len(names))


def _flags(table: Table, name: str) -> list[float]:
    """A column of flags."""
    found = []
    for i, value in enumerate(column(table, name)):
        flag = _FLAGS.get(str(value).strip().lower()) if labels.is_plain(value) else None
        if flag is None:
            raise bad_row(
                table,
                i,
                f"found {labels.shown(value)} in the column {name!r}, but "
                "expected 1 where the class applies and 0 where not. Correct or remove the "
                "row, or check config.data.label_columns.",
            )
        found.append(flag)
    return found


def _rows(table: Table, name: str) -> list[tuple[str, ...]]:
    """The classes of each row of a table from `read_sets`."""
    found = []
    for i, value in enumerate(column(table, name)):
        if value is not None and not isinstance(value, tuple):
            raise bad_row(
                table,
                i,
                f"found {labels.shown(value)} in the label column {name!r}, but"
                ' expected a list of classes, such as ["news", "sport"], news|sport or [0, 1].'
                " Correct the row, or check config.data.label_column and label_separator.",
            )
        found.append(value or ())
    return found


def _raw(value: Any) -> Any:
    """A value that is no list of labels, as what no list of class names is."""
    return list(value) if isinstance(value, tuple) else value


def _names_of(items: list[Any], names: tuple[str, ...], hot: bool) -> tuple[str, ...]:
    """The classes of a row, each once: of its flags, its names, or its indices into the names."""
    if hot:
        return tuple(n for n, item in zip(names, items, strict=False) if _FLAGS[_text(item)])
    return tuple(dict.fromkeys(labels.label_of(item, names) for item in items))


def _items(value: Any, separator: str) -> list[Any] | None:
    """The items of a list of labels; None where the value is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            value = text.split(separator) if text else []
            return value if all(map(_is_label, value)) else None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list | tuple) and all(map(_is_label, value)):
        return list(value)
    return None


def _is_label(item: Any) -> bool:
    """Whether an item may name a class: no list, no blank and no fraction."""
    return labels.is_plain(item) and bool(_text(item))


@lru_cache(maxsize=1 << 16, typed=True)
def _text(item: Any) -> str:
    """A plain item as it would be written, in small letters; empty where it names no class."""
    if isinstance(item, float) and not item.is_integer():
        return ""
    return labels.label_of(item, ()).lower()


def _are_multi_hot(
    tables: Mapping[str, Table], lists: Mapping[str, _Lists], columns: ColumnSettings
) -> bool:
    """Whether lists have 0 or 1 for each class, in all splits alike.

    Lists of 0 and 1 that are all of one length, and in which one of them stands twice, can be
    nothing else; lists of different lengths, in which none does, name the classes 0 and 1.
    """
    name, form = columns.label_column, columns.label_lists
    rows = [items for part in lists.values() for items in part if items]
    declared = next((len(table.class_names.get(name, ())) for table in tables.values()), 0)
    sizes, flags = {len(items) for items in rows}, all(_text(i) in _FLAGS for r in rows for i in r)
    fits = flags and len(sizes) == 1 and declared in (0, *sizes)
    if form == "names" or not rows or (form == "auto" and not flags):
        return False
    twice = any(len({*map(_text, items)}) < len(items) for items in rows)
    if form == "auto" and (declared or not twice) and not fits:
        return False
    if fits and (form == "multi_hot" or twice):
        return True
    raise _doubtful(tables, lists, name, form)


def _doubtful(
    tables: Mapping[str, Table], lists: Mapping[str, _Lists], name: str, form: str
) -> UserError:
    """The message for lists that may be either, or that are not what the settings say."""
    rows = [(split, i, row) for split, part in lists.items() for i, row in enumerate(part) if row]
    ((size, _),) = Counter(len(row) for *_, row in rows).most_common(1)
    odd = [r for r in rows if len(r[2]) != size or any(_text(item) not in _FLAGS for item in r[2])]
    split, i, items = (odd or rows)[0]
    place = where(tables[split], i)
    found = f"{place}: found {str(items)[:80]} in the label column {name!r}"
    if form == "multi_hot":
        return UserError(
            f"{found}, but expected 0 or 1 for each class, in every row for as many, as {_SETTING}"
            " is multi_hot. Correct the row, or set it to names."
        )
    return UserError(
        f"{found}, and nothing but 0 and 1 in all rows: these may say of each class whether it"
        f" applies, or name the classes 0 and 1. Set {_SETTING}=multi_hot or {_SETTING}=names, or"
        " config.task=classification where each row has one class."
    )
