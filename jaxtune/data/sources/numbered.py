"""A further column of the data, in the order of a split's rows."""

from typing import Any

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.rows import Reader, read_data
from jaxtune.data.sources.table import Table, num_rows
from jaxtune.settings.data import ColumnSettings, DataSettings


def column_of(settings: DataSettings, reader: Reader, split: str, name: str) -> list[Any]:
    """What a column holds in each row of a split, as a run with these settings has its rows.

    Args:
      settings: of the data, with its digest.
      reader: of the task.
      split: `train`, `validation` or `test`.
      name: of the column.

    Raises:
      UserError: no such column, rows that are no rows of a table, or data that has changed.
    """
    if settings.source.path == "memory":
        raise UserError(
            f"--slice_by={name}: the run was on rows in memory, which are no more. Expected data in"
            " files or on the hub."
        )
    values: list[Any] = []

    def numbered(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
        """The tables with rows that are numbered through from 0, over all of them."""
        found = {}
        for part, table in reader.load(source, columns).items():
            if name not in table.columns:
                near = nearest(name, table.columns)
                raise UserError(
                    f"--slice_by={name}: {table.source} has no such column; it has"
                    f" {', '.join(table.columns)}.{near}"
                )
            start = len(values)
            values.extend(table.columns[name])
            found[part] = table._replace(rows=range(start, start + num_rows(table)))
        return found

    places = read_data(settings, reader._replace(load=numbered)).splits[split].places
    if places is None:
        raise UserError(
            f"--slice_by={name}: the rows of this task are no rows of the table, so no column says"
            " what they are."
        )
    return [values[place] for place in places.tolist()]
