"""Rows that are in memory already, as a Table: a dataset, columns, or one mapping a row."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import no_text
from jaxtune.data.sources.hub import from_dataset
from jaxtune.data.sources.table import Table, bad_row

InMemory = Any
"""n rows: a `datasets.Dataset`, a mapping from column to n values, or a sequence of n mappings."""


def from_memory(rows: InMemory, name: str) -> Table:
    """A Table of the rows.

    Args:
      rows: n of them, as `InMemory` says; values are those that a file would hold: texts, numbers,
        lists, images, or numpy arrays of these with the rows as their first axis.
      name: of the rows in messages, such as `train`.

    Raises:
      UserError: none of these, no rows, or columns of different lengths.
    """
    source = f"data[{name}]"
    if hasattr(rows, "features") and hasattr(rows, "with_format"):
        return from_dataset(rows, source)
    if isinstance(rows, Mapping):
        columns = {str(key): _values(values) for key, values in rows.items()}
    elif isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(str(key) for row in rows for key in row)
        columns = {key: [_plain(row.get(key)) for row in rows] for key in names}
    else:
        raise UserError(
            f"{source} is a {type(rows).__name__}: expected a datasets.Dataset, a mapping from"
            " column to values, or a sequence of mappings, one a row."
        )
    sizes = {key: len(values) for key, values in columns.items()}
    if len({*sizes.values()}) != 1 or not next(iter(sizes.values())):
        told = ", ".join(f"{key} {size}" for key, size in sizes.items()) or "no column"
        raise UserError(f"{source}: expected columns of one length, at least 1; found {told}.")
    table = Table(columns, source, range(1, 1 + next(iter(sizes.values()))), {}, unit="row")
    for key, values in columns.items():
        for i, value in enumerate(values):
            wrong = no_text(value) if isinstance(value, str | list | dict) else None
            if wrong:
                raise bad_row(table, i, f"in the column {key!r} {wrong}")
    return table


def digest(tables: Mapping[str, Table]) -> str:
    """A sha256 of all values, so that a run that goes on knows whether they are the same."""
    found = hashlib.sha256()
    for split, table in sorted(tables.items()):
        for name, values in table.columns.items():
            found.update(f"{split}/{name}/{len(values)}\n".encode())
            for value in values:
                found.update(value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())
    return found.hexdigest()


def _values(values: Any) -> list[Any]:
    """A column as a list of plain values."""
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """Numpy's scalars and vectors as Python's; images in arrays, and the rest, as they are."""
    is_plain = isinstance(value, np.generic | np.ndarray) and value.ndim < 2
    return value.tolist() if is_plain else value
