"""One data file to one Table: a table or a text a line. Every fault names file and line."""

from collections.abc import Sequence
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.data.sources import conll, delimited, json_records, parquet
from jaxtune.data.sources.bad_rows import sift, sound_texts
from jaxtune.data.sources.reading import TRAINING, Reading, Wording
from jaxtune.data.sources.table import Table, check_columns
from jaxtune.data.sources.text_files import (
    first_line,
    is_encodable,
    lines_of,
    read_text,
)
from jaxtune.settings.data import FileSettings, Format

LINE_SUFFIXES = (".txt", ".tokens", ".raw")  # the last two are WikiText's
_TABLES = (*delimited.SUFFIXES, *json_records.SUFFIXES, ".parquet")
SUFFIXES = (*_TABLES, *LINE_SUFFIXES, *conll.SUFFIXES)

_PLAIN = FileSettings()

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    **dict.fromkeys(json_records.SUFFIXES, "json"),
    **dict.fromkeys(LINE_SUFFIXES, "text"),
    **dict.fromkeys(conll.SUFFIXES, "conll"),
}


def read_file(
    path: str,
    settings: FileSettings = _PLAIN,
    required: Sequence[str] = (),
    *,
    words: bool = False,
    says: Wording = TRAINING,
) -> Table:
    r"""Reads one file; its suffix says how, or the settings' `format`.

    `delimited`, `json_records` and `conll` say what they read. `.parquet` brings the class names
    of its Hugging Face metadata. `.txt`, and WikiText's `.tokens` and `.raw`, have a text a line,
    blank ones included, in one column: the first of `required`, or else `text`; a file whose first
    line shows the `required` columns, or for which there are `column_names`, is a table. In text
    files `\n`, `\r\n` and `\r` end a line; a byte order mark and blank lines at the end are
    ignored.

    Args:
      path: The file; `~` is expanded.
      settings: How files are read. A file has a header if its first row holds all of `required` (of
        `column_names` if that is empty). Without one, a row may leave out fields after the required
        ones; they are None.
      required: The columns that the file, and each JSON record, must have; CoNLL names none.
      words: Whether words with tags are wanted: `.txt`, `.tsv` and unknown suffixes are CoNLL.
      says: What a person is told.

    Returns:
      The table, with at least one row.

    Raises:
      UserError: the file cannot be read or decoded, has no records, lacks a column, or is
        malformed. The message has file, line, what was found and expected, and the remedy.
    """
    reading = Reading(path, settings, tuple(required), says)
    kind = format_of(reading, words)
    if kind == "parquet":
        table = parquet.to_table(reading)
        check_columns(table.columns, required, path, says.columns)
    else:
        table = _read_text_file(read_text(reading), reading, kind)
    if not table.rows:
        bad = f" that can be read: {table.skipped.first[0]}" if table.skipped.number else ""
        raise UserError(f"{path}: found no records{bad}, but expected at least one.")
    faults = table.skipped.kept
    if len(faults) == len(table.rows):
        raise UserError(f"{path}: none of {len(faults)} rows can be read. First: {faults[0]}")
    return table


def format_of(reading: Reading, words: bool) -> Format:
    """The format of a file: that of the settings, or the one that its suffix says.

    Raises:
      UserError: neither says any.
    """
    if reading.settings.format is not None:
        return reading.settings.format
    suffix = Path(reading.path).suffix.lower()
    kind = _FORMATS.get(suffix)
    if words and kind in (None, "text", "tsv"):
        return "conll"
    if kind is None:
        raise UserError(
            f"{reading.path}: found the suffix {suffix!r}, but expected one of"
            f" {', '.join(SUFFIXES)}. {reading.says.format}"
        )
    return kind


def _read_text_file(text: str, reading: Reading, kind: Format) -> Table:
    if kind == "json":
        return json_records.to_table(text, reading)
    if kind == "conll":
        return conll.to_table(lines_of(text), reading)
    if kind != "text":
        return delimited.to_table(text, reading, quoted=kind == "csv")
    start = first_line(text)
    if reading.settings.format is None and (
        reading.settings.column_names or delimited.is_table(start, reading)
    ):
        return delimited.to_table(text, reading, quoted="\t" not in start)
    return _text_lines(text, reading)


def _text_lines(text: str, reading: Reading) -> Table:
    """A text a line."""
    records = enumerate(lines_of(text), start=1)
    if not is_encodable(text):
        records = sound_texts(records, reading.path, reading.settings.encoding)
    good, skipped = sift(records, reading.on_bad_row, "")
    name = next(iter(reading.required), "text")
    lines = [line for line, _ in good]
    table = Table({name: [value for _, value in good]}, reading.path, lines, {}, skipped=skipped)
    check_columns(table.columns, reading.required, reading.path, reading.says.columns)
    return table
