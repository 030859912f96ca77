"""New data to predict on: of a file, or in memory already."""

from collections.abc import Sequence
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.data.sources.files import read_file
from jaxtune.data.sources.reading import NEW_DATA
from jaxtune.data.sources.table import Table, check_columns
from jaxtune.settings.data import FileSettings


def open_new(
    source: Path | Table,
    encoding: str,
    what: str,
    required: Sequence[str] = (),
    *,
    words: bool = False,
) -> Table:
    """The table of new data to predict on: of a file, or one that is in memory already.

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
