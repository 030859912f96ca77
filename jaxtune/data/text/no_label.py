"""Rows without a label, where the data says so by a word of its own, such as SNLI's `-`."""

from collections.abc import Sequence

from jaxtune.data.sources.table import Table, column, num_rows, take
from jaxtune.data.text.labels import label_of
from jaxtune.settings.data import ColumnSettings


def labelled(table: Table, columns: ColumnSettings) -> Table:
    """The rows with a label, and a note of how many have none.

    Args:
      table: n rows. Where all of them have none, as of a test set that withholds its labels, it
        stays as it is.
      columns: say which column has labels, and in `no_label` what stands there for none.
    """
    if columns.label_column not in table.columns:
        return table
    kept, size = _kept(table, columns), num_rows(table)
    if not kept or len(kept) == size:
        return table
    none = " or ".join(columns.no_label)
    told = f"{table.source}: {size - len(kept)} of {size} rows have no label ({none}), and"
    left = take(table, kept)
    return left._replace(notes=(*left.notes, f"{told} are left out"))


def are_withheld(table: Table, columns: ColumnSettings) -> bool:
    """Whether no row has a label, as `no_label` says."""
    return bool(columns.no_label) and not _kept(table, columns)


def _kept(table: Table, columns: ColumnSettings) -> list[int]:
    """The rows with a label."""
    name, none = columns.label_column, {*columns.no_label}
    declared = table.class_names.get(name, ())
    return [i for i, v in enumerate(column(table, name)) if label_of(v, declared) not in none]


def are_none(names: Sequence[str]) -> list[str]:
    """Those of the names of classes that stand for no label elsewhere; -1 beside 0, 1, 2 alone."""
    counted = {"0", "1", "2"} <= {*names}
    return [name for name in names if name == "-" or (name == "-1" and counted)]
