"""csv and tsv to a Table.

csv is RFC 4180, read strictly: fields in quotes may hold commas and line ends. tsv is the IANA
format, which has no quoting.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.data.sources.table import COLUMN_REMEDY, Table, check_columns
from jaxtune.data.sources.text_files import unify_line_ends

SUFFIXES = (".csv", ".tsv")

_HEADER_REMEDY = (
    f"{COLUMN_REMEDY} For a file without a header, name its columns in config.data.column_names."
)
_FIELD_REMEDY = {
    ".csv": 'Put a field that holds a comma, a quote or a line end in quotes ("), and double the '
    "quotes within it.",
    ".tsv": "A tsv field can hold neither a tab nor a line end: take them out, or use csv or "
    "json lines.",
}

Record = tuple[int, list[str]]
"""The 1-based line on which a record starts, and its fields; a blank line has none."""


def to_table(
    text: str, path: str, column_names: Sequence[str] = (), required: Sequence[str] = ()
) -> Table:
    """A Table of the records of a text; its rows are lines.

    Args:
      text: the content of the file.
      path: of the file, whose suffix says which of the two it is.
      column_names: the columns of a file without a header, as in `files.read_file`.
      required: columns that the file must have.

    Raises:
      UserError: no records, a malformed one, or columns that are not as expected.
    """
    records = _csv_records if Path(path).suffix.lower() == ".csv" else _tsv_records
    return _with_header(path, list(records(text, path)), column_names, required)


def _csv_records(text: str, path: str) -> Iterator[Record]:
    """The records of a csv file; one that holds line ends counts from its first line."""
    # The limit is the process's own; it is only ever raised, so that readers in other threads
    # cannot lower it for each other.
    csv.field_size_limit(max(csv.field_size_limit(), min(len(text) + 1, 2**31 - 1)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        found = "a quote that is never closed" if "end of data" in str(error) else str(error)
        raise UserError(
            f"{path} line {line}: malformed csv record: found {found}, but expected RFC 4180. "
            f"{_FIELD_REMEDY['.csv']} A tab-separated file without quoting must be named .tsv."
        ) from error


def _tsv_records(text: str, path: str) -> Iterator[Record]:
    """The records of a tsv file; a quote is a character like any other."""
    del path  # No tsv record is malformed by itself.
    for line, content in enumerate(unify_line_ends(text).split("\n"), start=1):
        yield line, content.split("\t") if content else []


def _with_header(
    path: str, records: list[Record], column_names: Sequence[str], required: Sequence[str]
) -> Table:
    """Finds the header and puts the records into columns."""
    while records and not records[-1][1]:
        records.pop()
    if not records:
        raise UserError(f"{path}: found an empty file, but expected records. Check the file.")
    suffix = Path(path).suffix.lower()
    (first_line, first), *rest = records
    if not column_names:
        check_columns(first, required, f"{path} line {first_line}", _HEADER_REMEDY)
    if set(required or column_names) <= set(first):
        names, body, expected, fewest = first, rest, "as in the header", len(first)
    else:
        # Only the required fields must be there: trailing ones are often left out.
        names, body, expected = list(column_names), records, "as in config.data.column_names"
        fewest = 1 + max((names.index(name) for name in required if name in names), default=0)
        check_columns(names, required, f"{path}: in config.data.column_names")
    if len(set(names)) < len(names):
        twice = ", ".join(sorted({repr(name) for name in names if names.count(name) > 1}))
        raise UserError(
            f"{path}: found the column name {twice} more than once, but expected distinct names. "
            "Rename the columns in the file or in config.data.column_names."
        )
    for line, fields in body:
        if not fewest <= len(fields) <= len(names):
            raise UserError(
                f"{path} line {line}: found {len(fields)} fields, but expected {len(names)}, "
                f"{expected} ({', '.join(names)}). {_FIELD_REMEDY[suffix]}"
            )
    columns = {
        name: [fields[i] if i < len(fields) else None for _, fields in body]
        for i, name in enumerate(names)
    }
    return Table(columns, path, [line for line, _ in body], {})
