"""JSON records to a Table.

There is one object a line; a `.json` file may be one array of objects instead, or SQuAD's object.
A key that only some records have is None in the others.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.data.sources import squad_json
from jaxtune.data.sources.table import Table, check_columns
from jaxtune.data.sources.text_files import unify_line_ends

SUFFIXES = (".jsonl", ".ndjson", ".json")


def to_table(text: str, path: str, required: Sequence[str] = ()) -> Table:
    """A Table of the records of a text; its rows are lines.

    Args:
      text: the content of the file.
      path: of the file.
      required: keys that each record must have.

    Raises:
      UserError: no records, or a malformed one.
    """
    text = unify_line_ends(text).rstrip()
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
