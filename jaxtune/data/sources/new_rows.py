"""New data to predict on: of a file, or in memory already; and its columns for the output."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.sources import conll, squad_json
from jaxtune.data.sources.files import LINE_SUFFIXES, read_file
from jaxtune.data.sources.reading import NEW_DATA
from jaxtune.data.sources.table import Table, check_columns, num_rows
from jaxtune.settings.data import FileSettings

ROW = "row"
"""The column of the number of each row, from 1, where the input has no columns of its own."""


class SourceColumns(NamedTuple):
    """What may stand beside the predictions.

    Attributes:
      values: of each row, by name.
      usual: the names of those that do where nobody says which.
    """

    values: Mapping[str, Sequence[Any]]
    usual: tuple[str, ...]


def open_new(
    source: Path | Table,
    encoding: str,
    what: str,
    required: Sequence[str] = (),
    *,
    words: bool = False,
) -> Table:
    """The table of new data to predict on: of a file, or one that is in memory already.

    Of a file, rows that cannot be read are there without values; `Table.skipped` tells of them.

    Args:
      source: a file that `read_file` reads, or the table.
      encoding: of a file.
      what: a file of what is expected, for the message.
      required: columns that must be there.
      words: as in `read_file`.

    Raises:
      UserError: a folder, a column that is not there, or as `read_file`.
    """
    if isinstance(source, Table):
        check_columns(source.columns, required, source.source, NEW_DATA.columns)
        return source
    if source.is_dir():
        raise UserError(f"{source} is a folder: expected a file of {what}.")
    files = FileSettings(encoding=encoding)
    return read_file(str(source), files, required, words=words, says=NEW_DATA)


def open_lines(source: Path, encoding: str, name: str, what: str) -> Table:
    """The lines of a text file, as the column `name`.

    Args:
      source: the file.
      encoding: of it.
      name: of the column.
      what: is expected on a line, for the message.

    Raises:
      UserError: as `read_file`.
    """
    if source.is_file() and not source.stat().st_size:
        raise UserError(f"{source} is empty: expected {what} a line.")
    files = FileSettings("text", encoding)
    return read_file(str(source), files, (name,), says=NEW_DATA)


def source_columns(table: Table) -> SourceColumns:
    """The columns of new data.

    Of a table, all stand in an output; of lines of text and of CoNLL files the number of the row,
    of SQuAD's JSON the `id`.
    """
    values = {name: column for name, column in table.columns.items() if name != conll.LINES}
    is_lines = len(values) == 1 and table.source.lower().endswith(LINE_SUFFIXES)
    if is_lines or conll.LINES in table.columns:
        return SourceColumns({ROW: range(1, num_rows(table) + 1)} | values, (ROW,))
    is_squad = (*values,) == squad_json.COLUMNS and table.source.lower().endswith(".json")
    return SourceColumns(values, ("id",) if is_squad else (*values,))
