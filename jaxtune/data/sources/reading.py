"""How a file is to be read, and what a person is told to do where it cannot be."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtune.data.sources.bad_rows import OnBadRow
from jaxtune.data.sources.table import COLUMN_REMEDY
from jaxtune.settings.data import FileSettings


class Wording(NamedTuple):
    """Remedies, as they are true for a command.

    Attributes:
      columns: where a column is missing.
      header: the same, of a table without a header row.
      encoding: the name of the setting.
      format: where a suffix says no format.
    """

    columns: str
    header: str
    encoding: str
    format: str


TRAINING = Wording(
    COLUMN_REMEDY,
    "For a file without a header, name its columns in config.data.column_names.",
    "config.data.encoding",
    "Set config.data.format, or convert or rename the file.",
)
"""Of data that settings name."""

NEW_DATA = Wording(
    "Name a column that is there with --text_columns.",
    "A table needs a header row.",
    "--encoding",
    "Convert or rename the file.",
)
"""Of a file to predict on."""


class Reading(NamedTuple):
    """How one file is read.

    Attributes:
      path: as the person gave it.
      settings: of files.
      required: columns that it, and each JSON record, must have; CoNLL names none.
      says: what a person is told.
    """

    path: str
    settings: FileSettings = FileSettings()
    required: Sequence[str] = ()
    says: Wording = TRAINING

    @property
    def on_bad_row(self) -> OnBadRow:
        """What becomes of a row that cannot be read: of new data, it stays without values."""
        return "keep" if self.says is NEW_DATA else self.settings.on_bad_row
