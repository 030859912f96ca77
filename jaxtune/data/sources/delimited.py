"""csv and tsv to a Table.

csv is RFC 4180, read strictly: fields in quotes may hold commas and line ends; where the header
shows that another character separates them, it is that one. tsv is the IANA format, which has no
quoting.
"""

import array
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import OnBadRow, Skipped, sift, sound_texts
from jaxtune.data.sources.reading import NEW_DATA, Reading
from jaxtune.data.sources.table import Table, check_columns, shown
from jaxtune.data.sources.text_files import (
    check_sizes,
    first_line,
    is_encodable,
    long_line,
    unify_line_ends,
)

SUFFIXES = (".csv", ".tsv")

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_FIELD_REMEDY = {
    "csv": 'Put a field that holds a comma, a quote or a line end in quotes ("), and double the '
    "quotes within it.",
    "tsv": "A tsv field can hold neither a tab nor a line end: take them out, or use csv or "
    "json lines.",
}
_GLUE = (
    {"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
    {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
)
"""Names in GLUE's own files (MRPC; MNLI) -> what the hub's version calls the same columns."""

_BLOCK = 1 << 20  # characters whose lines are in memory at a time, and those up to the line's end
_RECORDS = 4096  # that are put into columns at a time
_MOST_SHARED = 4096  # values of a column that are kept to be shared
_LINE_END = re.compile(r"\r\n|\r|\n")

Record = tuple[int, list[str] | UserError]
"""The 1-based line on which a record starts, and its fields; a blank line has none."""


def to_table(text: str, reading: Reading, quoted: bool) -> Table:
    """A Table of the records of a text; its rows are lines.

    Args:
      text: the content of the file.
      reading: of the file; `column_names` are those of a file without a header.
      quoted: csv, else tsv.

    Raises:
      UserError: no records, a malformed one, or columns that are not as expected.
    """
    text = text.rstrip("\r\n")
    if not text:
        raise UserError(f"{reading.path}: found an empty file, but expected records.")
    separator = _find_separator(first_line(text), reading) if quoted else "\t"
    records = _csv_records(text, reading, separator) if quoted else _tsv_records(text, reading)
    if not is_encodable(text):
        records = iter(sound_texts(records, reading.path, reading.settings.encoding))
    table = _with_header(reading, records, "csv" if quoted else "tsv")
    if separator == "," or not quoted:
        return table
    note = f"{reading.path}: its fields are separated by {_SEPARATORS[separator]}, {separator!r}"
    return table._replace(notes=(*table.notes, note))


def is_table(line: str, reading: Reading) -> bool:
    """Whether the first line of a text file shows that it is a table with the columns wanted."""
    names = reading.required
    fields = [line.split(separator) for separator in _SEPARATORS]
    named = [part for part in fields if len(part) > 1 and all(f and f == f.strip() for f in part)]
    return bool(names) and any({*names} <= {*part} for part in named)


def _find_separator(line: str, reading: Reading) -> str:
    """The first that gives the columns that are wanted; a comma where none does."""
    wanted, given = reading.required or reading.settings.column_names, reading.settings.column_names
    for separator in _SEPARATORS:
        try:
            fields = next(csv.reader([line], strict=True, delimiter=separator), [])
        except csv.Error:
            continue
        has_names = bool(wanted) and {*wanted} <= {*_hub_names(fields, wanted)}
        if has_names or len(fields) == len(given) > 1 or (not wanted and len(fields) > 1):
            return separator
    return ","


def _csv_records(text: str, reading: Reading, separator: str) -> Iterator[Record]:
    """The records of a csv file; one that holds line ends counts from its first line.

    After a malformed record, reading goes on at the line after its first.
    """
    # The limit is the process's own, and only ever raised: lines have one of their own.
    csv.field_size_limit(2**31 - 1)
    lines = _Lines(text, reading)
    while lines.offset < len(text):
        start, first = lines.offset, lines.count  # of the record
        try:
            for fields in csv.reader(lines, strict=True, delimiter=separator):
                yield first + 1, fields
                start, first = lines.offset, lines.count
            return
        except csv.Error as error:
            found = "a quote that is never closed" if "end of data" in str(error) else str(error)
            fault = UserError(
                f"{reading.path} line {first + 1}: malformed csv record: found {found}, but"
                f" expected RFC 4180. {_FIELD_REMEDY['csv']} A tab-separated file without quoting"
                " must be named .tsv."
            )
        except _LongLineError as error:
            fault = error.args[0]
        yield first + 1, fault
        lines.offset, lines.count = _line_end(text, start), first + 1


class _LongLineError(Exception):
    """Its argument is the fault."""


class _Lines:
    """The lines of a text with their ends, as long as they are not too long.

    Few of them are in memory at a time.

    Attributes:
      offset: of the next line, in characters.
      count: of the lines so far.
    """

    def __init__(self, text: str, reading: Reading) -> None:
        self.offset = self.count = 0
        self._text, self._reading = text, reading

    def __iter__(self) -> Iterator[str]:
        text, limit = self._text, self._reading.settings.max_row_characters
        while self.offset < len(text):
            stop = text.find("\n", self.offset + _BLOCK) + 1 or len(text)
            for line in io.StringIO(text[self.offset : stop], newline=""):
                self.offset += len(line)
                self.count += 1
                if len(line) > limit:
                    raise _LongLineError(long_line(self._reading, self.count, line))
                yield line


def _line_end(text: str, start: int) -> int:
    """Where the line after the one at `start` begins."""
    found = _LINE_END.search(text, start)
    return len(text) if found is None else found.end()


def _tsv_records(text: str, reading: Reading) -> Iterator[Record]:
    """The records of a tsv file; a quote is a character like any other."""
    for line, content in check_sizes(unify_line_ends(text).split("\n"), reading):
        if isinstance(content, UserError):
            yield line, content
        else:
            yield line, content.split("\t") if content else []


def _hub_names(fields: list[str], required: Sequence[str]) -> list[str]:
    """The header; one of GLUE's own with the names of the hub, where these are wanted."""
    for names in _GLUE:
        texts = [name for name, new in names.items() if new != "label"]
        wanted = {*required} <= {*names.values(), *fields}
        if wanted and not {*required} <= {*fields} and {*texts} <= {*fields}:
            return [names.get(field, field) for field in fields]
    return fields


def _with_header(reading: Reading, records: Iterator[Record], kind: str) -> Table:
    """Finds the header and puts the records into columns."""
    path, required, given = reading.path, reading.required, reading.settings.column_names
    first_line, first = next(records)
    if isinstance(first, UserError):
        raise first
    header = _hub_names(first, required)
    if not given:
        remedy = f"{reading.says.columns} {reading.says.header}"
        check_columns(header, required, f"{path} line {first_line}", remedy)
    if set(required or given) <= set(header):
        names, expected, fewest = _name_blanks(header), "as in the header", len(header)
    else:
        # Only the required fields must be there: trailing ones are often left out.
        names, expected = list(given), "as in config.data.column_names"
        fewest = 1 + max((names.index(name) for name in required if name in names), default=0)
        check_columns(names, required, f"{path}: in config.data.column_names")
        records = _prepend((first_line, first), records)
    is_new = reading.says is NEW_DATA
    if is_new:
        names = _tell_apart(names, required)
    _check_distinct(names, path, "" if is_new else " or in config.data.column_names")
    what = f"expected {len(names)}, {expected} ({shown(names)}). {_FIELD_REMEDY[kind]}"
    fitting = _check_counts(records, range(fewest, len(names) + 1), path, what)
    columns, rows, skipped = _to_columns(fitting, len(names), reading.on_bad_row)
    return Table(dict(zip(names, columns, strict=True)), path, rows, {}, skipped=skipped)


def _to_columns(
    records: Iterator[Record], width: int, on_bad_row: OnBadRow
) -> tuple[list[list[Any]], Sequence[int], Skipped]:
    """The fields by column, None where a record has fewer; the line of each record; faults."""
    columns: list[list[Any]] = [[] for _ in range(width)]
    shared: list[dict[Any, Any]] = [{} for _ in range(width)]
    rows, skipped = array.array("q"), Skipped()
    while chunk := list(itertools.islice(records, _RECORDS)):
        good, more = sift(chunk, on_bad_row, [])
        skipped += more.moved(len(rows))
        rows.extend(line for line, _ in good)
        found = list(itertools.zip_longest(*(fields for _, fields in good)))
        found += [(None,) * len(good)] * (width - len(found))
        for column, values, known in zip(columns, found, shared, strict=True):
            column += _share(values, known)
    return columns, rows, skipped


def _share(values: Sequence[Any], known: dict[Any, Any]) -> Sequence[Any]:
    """The values; where most occur several times, as labels do, each is one object."""
    if 4 * len({*values}) > len(values) or len(known) > _MOST_SHARED:
        return values
    return [known.setdefault(value, value) for value in values]


def _prepend(first: Record, records: Iterator[Record]) -> Iterator[Record]:
    yield first
    yield from records


def _name_blanks(header: list[str]) -> list[str]:
    """The header; where several columns have no name, as spreadsheets leave them, these by place.

    One alone is the index that pandas writes, and stays as it is.
    """
    if header.count("") < 2:
        return header
    return [name or f"column_{place}" for place, name in enumerate(header, start=1)]


def _tell_apart(names: Sequence[str], required: Sequence[str]) -> list[str]:
    """Equal names with a number from the second on; those of the columns that are read stay."""
    found: dict[str, None] = {}
    for name in names:
        own, number = name, 1
        while own in found:
            if name in required:
                return [*names]  # nobody can tell which is meant
            number += 1
            own = f"{name}_{number}"
        found[own] = None
    return [*found]


def _check_distinct(names: Sequence[str], path: str, remedy: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise UserError(
            f"{path}: found the column name {shown(twice)} more than once, but expected distinct"
            f" names. Rename the columns in the file{remedy}."
        )


def _check_counts(
    records: Iterator[Record], counts: range, path: str, expected: str
) -> Iterator[Record]:
    """The records, with a fault in the place of one of another number of fields."""
    for line, fields in records:
        if isinstance(fields, UserError) or len(fields) in counts:
            yield line, fields
        else:
            text = f"{path} line {line}: found {len(fields)} fields, but {expected}"
            yield line, UserError(text)
