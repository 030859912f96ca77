"""Rows in memory that remember which line of which file each of them came from."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources.bad_rows import BadRowsError, Skipped

COLUMN_REMEDY = (
    "Set config.data.text_columns and config.data.label_column to columns that are there."
)


class Table(NamedTuple):
    """Columns of equal length and where each row stands in its source.

    Attributes:
      columns: Name -> values [n]. str from csv and tsv, JSON values from json lines, Python
        values from parquet and the hub.
      source: The file path as the user gave it, or `hub-name[split]`.
      rows: 1-based place of each row [n] in its file, in units of `unit`.
      class_names: Column -> names of its classes, for columns that the source itself declares
        as a ClassLabel; such a column holds indices into the names.
      files: The file of each row [n], for a table put together from several; else empty, and
        every row is from `source`.
      unit: what `rows` counts: the `line` on which a record starts, or the `row`; empty where each
        row is a file of its own.
      notes: what a person should know of how it was read.
      skipped: rows of the source that are not here, as they could not be read.
    """

    columns: dict[str, list[Any]]
    source: str
    rows: Sequence[int]
    class_names: dict[str, tuple[str, ...]]
    files: Sequence[str] = ()
    unit: str = "line"
    notes: tuple[str, ...] = ()
    skipped: Skipped = Skipped()


class MissingColumnsError(UserError):
    """A table, or a record, lacks a column."""


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
    return f"{source} {table.unit} {table.rows[i]}" if table.unit else source


def bad_row(table: Table, i: int, wrong: str) -> BadRowsError:
    """The error of a check that refuses row `i` (0-based) of a table.

    Args:
      table: of the row.
      i: where it stands.
      wrong: what was found and what was expected, and the remedy.
    """
    return BadRowsError({i: f"{where(table, i)}: {wrong}"})


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
        hints = "".join(nearest(name, found[:1000]) for name in missing)
        if ".txt" in place and remedy == COLUMN_REMEDY:
            remedy += " For a table in such a file, set config.data.format."
        raise MissingColumnsError(
            f"{place}: found the columns {shown(found)}, but expected "
            f"{', '.join(map(repr, missing))} too.{hints} {remedy}"
        )


def shown(names: Sequence[str]) -> str:
    """Names of columns for a message: in a file without a header they may be many, and long."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(repr(str(name)[:40]) for name in names[:10]) or "none") + more


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
                f"{other.source}: found the columns {shown([*other.columns])}, but expected those "
                f"of {first.source}: {shown([*first.columns])}. Parts of one split must agree."
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
        unit=first.unit,
        notes=tuple(note for table in tables for note in table.notes),
        skipped=sum((table.skipped for table in tables), Skipped()),
    )
