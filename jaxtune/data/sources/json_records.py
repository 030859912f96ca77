"""JSON records to a Table.

There is one object a line; a `.json` file may be one array of objects instead, SQuAD's object, or
an object with such an array for each split. A key that only some records have is None in the
others.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.data.sources import squad_json
from jaxtune.data.sources.bad_rows import sift, sound_texts
from jaxtune.data.sources.reading import Reading
from jaxtune.data.sources.table import MissingColumnsError, Table, check_columns
from jaxtune.data.sources.text_files import check_sizes, is_encodable, unify_line_ends

SUFFIXES = (".jsonl", ".ndjson", ".json")

_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_TRAIN = re.compile(r'"train(ing)?"\s*:\s*\[')
_MAX_DEPTH = 64
_MAX_KEYS = 1000
"""Of all records together; of more, those that stand in few records are left out."""


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:40]!r} twice in one object")
    return found


_FAST = json.JSONDecoder()
_STRICT = json.JSONDecoder(object_pairs_hook=_object)


def to_table(text: str, reading: Reading) -> Table:
    """A Table of the records of a text; its rows are lines.

    Args:
      text: the content of the file.
      reading: of the file.

    Raises:
      UserError: no records, or a malformed one.
    """
    path = reading.path
    text = unify_line_ends(text).rstrip()
    if not text:
        raise UserError(f"{path}: found an empty file, but expected records. Check the file.")
    whole = Path(path).suffix.lower() not in (".jsonl", ".ndjson")
    squad = squad_json.squad_table(path, text) if whole else None
    if squad is not None:
        check_columns(squad.columns, reading.required, path, reading.says.columns)
        return squad
    is_array = whole and text.lstrip().startswith("[")
    values = _json_array(text, path) if is_array else _json_lines(text, reading)
    return _table(_check_texts(values, text, reading), reading)


def split_tables(
    text: str, reading: Reading, words: Mapping[str, Sequence[str]]
) -> dict[str, Table] | None:
    """A Table for each array in an object, as CLINC150 has them; None for what is no such object.

    Args:
      text: the content of a `.json` file.
      reading: of the file. Records that are arrays have `column_names`, or text and label.
      words: split -> the keys for it, best first.

    Raises:
      UserError: a malformed record.
    """
    if not text.lstrip().startswith("{") or not _TRAIN.search(text):
        return None
    try:
        found = {name: rows for name, rows in loads(text).items() if isinstance(rows, list)}
    except (ValueError, RecursionError):
        return None
    keys = {split: next(filter(found.__contains__, names), "") for split, names in words.items()}
    tables = {
        split: _split_table(found.pop(key), text, reading._replace(path=f"{reading.path}[{key}]"))
        for split, key in keys.items()
        if key
    }
    tables = {
        split: table._replace(files=[reading.path] * len(table.rows), unit=f"{keys[split]} row")
        for split, table in tables.items()
    }
    if found and "train" in tables:
        left = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in found.items())
        note = f"{reading.path}: left alone, as no split has such a name: {left[:200]}"
        tables["train"] = tables["train"]._replace(notes=(*tables["train"].notes, note))
    return tables if "train" in tables else None


def _split_table(rows: Sequence[Any], text: str, reading: Reading) -> Table:
    names = reading.settings.column_names or ("text", "label")
    records = [
        (
            place,
            dict(zip(names, row, strict=True))
            if isinstance(row, list) and len(row) == len(names)
            else row,
        )
        for place, row in enumerate(rows, start=1)
    ]
    return _table(_check_texts(records, text, reading), reading)


def loads(text: str) -> Any:
    """A value, in which no object has a key twice and nothing is nested very deep.

    Raises:
      ValueError: anything else.
      RecursionError: nested deeper than Python goes.
    """
    value = _FAST.decode(text)
    if not isinstance(value, dict) or len(value) != text.count('":'):
        value = _STRICT.decode(text)  # nested, or with a key twice, or with `":` in a text
    _check_depth(value, text)
    return value


def _table(records: Iterable[tuple[int, Any]], reading: Reading) -> Table:
    path, required = reading.path, reading.required
    good, skipped = sift(_check_objects(records, reading), reading.on_bad_row, {})
    counts = Counter(name for _, record in good for name in record)
    notes = ()
    if len(counts) > _MAX_KEYS:  # else memory would grow with the square of the file
        least = len(good) / 100
        rare = {name for name, n in counts.items() if n < least and name not in required}
        counts = Counter({name: n for name, n in counts.items() if name not in rare})
        if rare:
            notes = (
                f"{path}: {len(rare)} keys that stand in less than one of 100 records are left out",
            )
    columns = {name: [record.get(name) for _, record in good] for name in counts}
    return Table(columns, path, [line for line, _ in good], {}, notes=notes, skipped=skipped)


def _check_objects(records: Iterable[tuple[int, Any]], reading: Reading) -> Iterator[Any]:
    """The records, with a fault in the place of one that is no object with the columns."""
    for line, record in records:
        place = f"{reading.path} line {line}"
        if isinstance(record, UserError):
            yield line, record
        elif not isinstance(record, dict):
            yield (
                line,
                UserError(
                    f"{place}: found a JSON {type(record).__name__}, but expected an object such"
                    ' as {"text": "...", "label": "..."}. Write one object a line.'
                ),
            )
        elif all(name in record for name in reading.required):
            yield line, record
        else:
            try:
                check_columns(record, reading.required, place, reading.says.columns)
            except MissingColumnsError as error:
                yield line, error


def _check_texts(
    records: Iterable[tuple[int, Any]], text: str, reading: Reading
) -> Iterable[tuple[int, Any]]:
    if not _HALF_PAIR.search(text) and is_encodable(text):
        return records
    return sound_texts(records, reading.path, reading.settings.encoding)


def _json_lines(text: str, reading: Reading) -> Iterator[tuple[int, Any]]:
    """The value on each line, with its line number."""
    for line, content in check_sizes(text.split("\n"), reading):
        if isinstance(content, UserError):
            yield line, content
            continue
        try:
            yield line, loads(content)
        except (ValueError, RecursionError) as error:
            yield line, _json_error(reading.path, line, error)


def _json_array(text: str, path: str) -> Iterator[tuple[int, Any]]:
    """The items of one array, with the line on which each starts."""
    position = _skip_space(text, text.index("[") + 1)
    line, seen = 1, 0
    separator = text[position : position + 1]
    while separator != "]":
        line, seen = line + text.count("\n", seen, position), position
        try:
            value, position = _STRICT.raw_decode(text, position)
            _check_depth(value, text, seen, position)
        except (ValueError, RecursionError) as error:
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


def _check_depth(value: Any, text: str, start: int = 0, stop: int | None = None) -> None:
    """Refuses a value that Python's own functions, which recurse, may not be able to handle."""
    if text.count("[", start, stop) + text.count("{", start, stop) <= _MAX_DEPTH:
        return
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for part in level
            if isinstance(part, dict | list)
            for item in (part.values() if isinstance(part, dict) else part)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise RecursionError


def _json_error(path: str, line: int, error: ValueError | RecursionError) -> UserError:
    """The message for text that is not JSON."""
    # JSONDecodeError's own text counts lines within the piece it was given: leave that out.
    reason = getattr(error, "msg", str(error)).partition(";")[0]
    if isinstance(error, RecursionError):
        reason = f"nested more than {_MAX_DEPTH} deep"
    return UserError(
        f"{path} line {line}: found text that is not JSON ({reason}), but expected one JSON object "
        "on each line, or, in a .json file, one array of objects. Mend or remove the record."
    )
