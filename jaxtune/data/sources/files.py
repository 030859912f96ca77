"""One data file to one Table: a table or a text a line. Every fault names file and line."""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtune.core.errors import UserError
from jaxtune.data.sources import conll, squad_json
from jaxtune.data.sources.table import COLUMN_REMEDY, Table, check_columns

if TYPE_CHECKING:
    import pyarrow

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
LINE_SUFFIXES = (".txt", ".tokens", ".raw")  # the last two are WikiText's
SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES, ".parquet", *LINE_SUFFIXES, *conll.SUFFIXES)

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


def read_file(
    path: str,
    *,
    encoding: str = "utf-8",
    column_names: Sequence[str] = (),
    required: Sequence[str] = (),
) -> Table:
    r"""Reads one file; its suffix says how.

    `.csv` is RFC 4180, read strictly: fields in quotes may hold commas and line ends. `.tsv` is
    the IANA format, which has no quoting. `.jsonl`, `.ndjson` and `.json` hold one JSON object a
    line; a `.json` file may be one array of objects instead, or SQuAD's object, as
    `squad_json.squad_table` reads it. A JSON key that only some records have is None in the others.
    `.parquet` brings the class names of its Hugging Face metadata.
    `.conll`, `.bio`, `.iob`, `.iob2` and `.annotated` are read as `conll.to_table` says.
    `.txt`, and WikiText's `.tokens` and `.raw`, have a text a line, blank ones included, in one
    column: the first of `required`, or else `text`. In text files `\n`, `\r\n` and `\r` end a
    line, a byte order mark is dropped, and blank lines at the end are ignored.

    Args:
      path: The file; `~` is expanded.
      encoding: The character set of a text file, as Python names it.
      column_names: The columns of a csv or tsv file without a header. A file is taken to have
        one if its first row holds all of `required` (of `column_names` if that is empty).
        Without one, a row may leave out fields after the required ones; they are None.
      required: The columns that the file, and each JSON record, must have. A CoNLL file names
        none, so it is not asked for them.

    Returns:
      The table, with at least one row.

    Raises:
      UserError: the file cannot be read or decoded, has no records, lacks a required column, or
        is malformed. The message has file, line, what was found and expected, and the remedy.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path}: found the suffix {suffix!r}, but expected one of {', '.join(SUFFIXES)}. "
            "Convert or rename the file."
        )
    if suffix == ".parquet":
        table = _parquet(path)
        check_columns(table.columns, required, path)
    elif suffix in JSON_SUFFIXES:
        table = _json(path, _text(path, encoding), required)
    elif suffix in conll.SUFFIXES:
        table = conll.to_table(read_lines(path, encoding), path)
    elif suffix in LINE_SUFFIXES:
        texts, name = read_lines(path, encoding), next(iter(required), "text")
        table = Table({name: texts}, path, range(1, len(texts) + 1), {})
        check_columns(table.columns, required, path)
    else:
        records = _csv_records if suffix == ".csv" else _tsv_records
        lines = list(records(_text(path, encoding), path))
        table = _delimited(path, lines, column_names, required)
    if not table.rows:
        raise UserError(f"{path}: found no records, but expected at least one. Check the file.")
    return table


def from_arrow(
    arrow: "pyarrow.Table", class_names: dict[str, tuple[str, ...]], source: str
) -> Table:
    """Turns an Arrow table into a Table of Python values, with rows numbered from 1.

    Args:
      arrow: Any columns; n rows.
      class_names: As in Table.
      source: As in Table.
    """
    columns = {name: arrow.column(name).to_pylist() for name in arrow.column_names}
    return Table(columns, source, range(1, arrow.num_rows + 1), class_names)


def declared_names(features: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The class names of each ClassLabel feature, or list of them, in a `datasets.Features`."""
    import datasets

    items = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {
        name: tuple(item.names)
        for name, item in items.items()
        if isinstance(item, datasets.ClassLabel) and item.names
    }


def read_lines(path: str, encoding: str) -> list[str]:
    r"""The lines of a text file, ended by `\n`, `\r\n` or `\r`; blank ones at the end are ignored.

    Raises:
      UserError: the file cannot be read or decoded; the message has file, line and remedy.
    """
    text = _unify_line_ends(_text(path, encoding)).rstrip("\n")
    return text.split("\n") if text else []


# --- Text -----------------------------------------------------------------------------------


def _text(path: str, encoding: str) -> str:
    """The whole file, decoded, without a byte order mark; line ends are as they are."""
    data = _bytes(path).removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise UserError(
            f"{path}: found config.data.encoding {encoding!r}, but expected a text encoding that "
            "Python knows, such as utf-8, latin-1 or cp1252."
        ) from error
    except UnicodeDecodeError as error:
        line = _line_at_end(data[: error.start].decode(encoding, "replace"))
        raise UserError(
            f"{path} line {line}: found the byte 0x{data[error.start]:02x}, but expected text in "
            f"{encoding} ({error.reason}). Set config.data.encoding to the file's own encoding, "
            "e.g. latin-1."
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        raise UserError(
            f"{path} line {_line_at_end(text[:nul])}: found a NUL character, but expected text. "
            "Take it out, or set config.data.encoding if the file is in another encoding, "
            "e.g. utf-16."
        )
    return text


def _bytes(path: str) -> bytes:
    """The content of a file."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}), but expected a data file. Check the path."
        ) from error


def _unify_line_ends(text: str) -> str:
    r"""Makes every line end `\n`. (`str.splitlines` would also split at U+2028 and others.)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _line_at_end(text: str) -> int:
    """The 1-based number of the line that `text` ends in."""
    return _unify_line_ends(text).count("\n") + 1


# --- csv and tsv ----------------------------------------------------------------------------


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
    for line, content in enumerate(_unify_line_ends(text).split("\n"), start=1):
        yield line, content.split("\t") if content else []


def _delimited(
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


# --- JSON -----------------------------------------------------------------------------------


def _json(path: str, text: str, required: Sequence[str]) -> Table:
    """One object a line, or, in a .json file, one array of objects, or SQuAD."""
    text = _unify_line_ends(text).rstrip()
    if not text:
        raise UserError(f"{path}: found an empty file, but expected records. Check the file.")
    whole = Path(path).suffix.lower() == ".json"
    squad = squad_json.squad_table(path, text) if whole else None
    if squad is not None:
        check_columns(squad.columns, required, path)
        return squad
    is_array = whole and text.lstrip().startswith("[")
    records = list(_json_array(text, path) if is_array else _json_lines(text, path))
    for line, record in records:
        if not isinstance(record, dict):
            raise UserError(
                f"{path} line {line}: found a JSON {type(record).__name__}, but expected an object "
                'such as {"text": "...", "label": "..."}. Write one object a line.'
            )
        check_columns(record, required, f"{path} line {line}")
    names = dict.fromkeys(name for _, record in records for name in record)
    columns = {name: [record.get(name) for _, record in records] for name in names}
    return Table(columns, path, [line for line, _ in records], {})


def _json_lines(text: str, path: str) -> Iterator[tuple[int, Any]]:
    """The value on each line, with its line number."""
    for line, content in enumerate(text.split("\n"), start=1):
        try:
            yield line, json.loads(content)
        except ValueError as error:
            raise _json_error(path, line, error) from error


def _json_array(text: str, path: str) -> Iterator[tuple[int, Any]]:
    """The items of one array, with the line on which each starts."""
    decoder = json.JSONDecoder()
    position = _skip_space(text, text.index("[") + 1)
    line, seen = 1, 0
    separator = text[position : position + 1]
    while separator != "]":
        line, seen = line + text.count("\n", seen, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            raise _json_error(path, line, error) from error
        yield line, value
        position = _skip_space(text, position)
        separator = text[position : position + 1]
        if separator not in (",", "]"):
            raise _json_error(path, line, ValueError("expecting ',' or ']' after an item"))
        if separator == ",":
            position = _skip_space(text, position + 1)
    if text[position + 1 :].strip():
        line += text.count("\n", seen, _skip_space(text, position + 1))
        raise _json_error(path, line, ValueError("extra data after the array"))


def _skip_space(text: str, position: int) -> int:
    """The first position from `position` on that is not JSON white space."""
    while text[position : position + 1] in (" ", "\t", "\n"):
        position += 1
    return position


def _json_error(path: str, line: int, error: ValueError) -> UserError:
    """The message for text that is not JSON."""
    # JSONDecodeError's own text counts lines within the piece it was given: leave that out.
    reason = getattr(error, "msg", str(error))
    return UserError(
        f"{path} line {line}: found text that is not JSON ({reason}), but expected one JSON object "
        "on each line, or, in a .json file, one array of objects. Mend or remove the record."
    )


# --- Parquet --------------------------------------------------------------------------------


def _parquet(path: str) -> Table:
    """A parquet file and the class names in its Hugging Face metadata, if it has any."""
    import pyarrow
    import pyarrow.parquet

    try:
        # `read_table` would add columns for the `name=value` folders of the path.
        arrow = pyarrow.parquet.ParquetFile(io.BytesIO(_bytes(path))).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as parquet ({error}). If the folder was cloned with git, its "
            "large files may be pointers still: run `git lfs pull` in it."
        ) from error
    names: dict[str, tuple[str, ...]] = {}
    if b"huggingface" in (arrow.schema.metadata or {}):
        import datasets  # Slow to import, and only this metadata needs it.

        names = declared_names(datasets.Features.from_arrow_schema(arrow.schema))
    return from_arrow(arrow, names, path)
