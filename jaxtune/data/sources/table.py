"""Rows in memory that remember which line of which file each of them came from."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError, nearest

COLUMN_REMEDY = (
    "Set config.data.text_columns and config.data.label_column to columns that are there."
)


class Table(NamedTuple):
    """Columns of equal length and where each row stands in its source.

    Attributes:
      columns: Name -> values [n]. str from csv and tsv, JSON values from json lines, Python
        values from parquet and the hub.
      source: The file path as the user gave it, or `hub-name[split]`.
      rows: 1-based place of each row [n] in its file: the line on which the record starts
        (csv, tsv, json), or the number of the row (parquet, hub).
      class_names: Column -> names of its classes, for columns that the source itself declares
        as a ClassLabel; such a column holds indices into the names.
      files: The file of each row [n], for a table put together from several; else empty, and
        every row is from `source`.
    """

    columns: dict[str, list[Any]]
    source: str
    rows: Sequence[int]
    class_names: dict[str, tuple[str, ...]]
    files: Sequence[str] = ()


def num_rows(table: Table) -> int:
    """The number of rows n."""
    return len(table.rows)


def take(table: Table, indices: Iterable[int]) -> Table:
    """The rows at `indices` (0-based, any order, repeats allowed), places included.

    Raises:
      IndexError: an index is outside the table.
    """
    indices = [int(i) for i in indices]
    return table._replace(
        columns={name: [values[i] for i in indices] for name, values in table.columns.items()},
        rows=[table.rows[i] for i in indices],
        files=[table.files[i] for i in indices] if table.files else (),
    )


def where(table: Table, i: int) -> str:
    """The place of row `i` (0-based) for messages, such as `data/train.csv line 7`."""
    source = table.files[i] if table.files else table.source
    # Parquet files and hub datasets have no lines.
    unit = "row" if source.lower().endswith((".parquet", "]")) else "line"
    return f"{source} {unit} {table.rows[i]}"


def column(table: Table, name: str) -> list[Any]:
    """The values [n] of the column `name`.

    Raises:
      UserError: there is no such column; names the columns there are and the nearest.
    """
    check_columns(table.columns, (name,), table.source)
    return table.columns[name]


def check_columns(
    found: Iterable[str], required: Iterable[str], place: str, remedy: str = COLUMN_REMEDY
) -> None:
    """Checks that every required column is among those found at `place` (a file, or its line).

    Raises:
      UserError: names the missing columns, those found, the nearest and the remedy.
    """
    found = list(found)
    missing = [name for name in required if name not in found]
    if missing:
        hints = "".join(nearest(name, found) for name in missing)
        # In a file without a header the first row may be a long text: cut it.
        shown = ", ".join(repr(name[:40]) for name in found[:30]) or "none"
        raise UserError(
            f"{place}: found the columns {shown}, but expected {', '.join(map(repr, missing))} "
            f"too.{hints} {remedy}"
        )


def concatenate(tables: Sequence[Table], source: str) -> Table:
    """Puts tables with the same columns one after the other; each row keeps its file and place.

    Args:
      tables: At least one table.
      source: The name of the whole, for messages about no row in particular.

    Raises:
      UserError: the columns, or the class names declared for one, differ between tables.
    """
    first = tables[0]
    for other in tables[1:]:
        if set(other.columns) != set(first.columns):
            raise UserError(
                f"{other.source}: found the columns {', '.join(other.columns)}, but expected those "
                f"of {first.source}: {', '.join(first.columns)}. Parts of one split must agree."
            )
        if other.class_names != first.class_names:
            raise UserError(
                f"{other.source}: found the class names {other.class_names}, but expected those "
                f"of {first.source}: {first.class_names}. Parts of one split must agree."
            )
    return Table(
        columns={
            name: [value for table in tables for value in table.columns[name]]
            for name in first.columns
        },
        source=source,
        rows=[row for table in tables for row in table.rows],
        class_names=first.class_names,
        files=[file for t in tables for file in (t.files or [t.source] * num_rows(t))],
    )
