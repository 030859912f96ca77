"""The columns of the input that stand beside its predictions."""

import datetime
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources.new_rows import SourceColumns
from jaxtune.data.sources.rows import Rows
from jaxtune.data.sources.table import shown
from jaxtune.io.disk import explained
from jaxtune.tasks.records import Record

_ECHOES = ("id", "file", "text")
"""What a record tells again of its input."""


def choose(found: SourceColumns | None, asked: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    """The columns that stand in the output, by name.

    Args:
      found: of the input; None where it has none.
      asked: names; None takes the usual ones.

    Raises:
      UserError: the input has no such column.
    """
    values = {} if found is None else found.values
    if asked is None:
        return {} if found is None else {name: values[name] for name in found.usual}
    for name in asked:
        if name not in values:
            raise UserError(
                f"columns: found {name!r}, but expected names of the input's columns, which are"
                f" {shown([*values])}.{nearest(name, values)}"
            )
    return {name: values[name] for name in asked}


def keep_columns(rows: Rows, asked: str | None, output: Path) -> "Beside":
    """The columns that stand in an output file; those with bytes, such as images, cannot.

    Args:
      rows: to predict on.
      asked: names of columns with commas between them; None takes the usual ones.
      output: the file.

    Raises:
      UserError: the input has no such column, or one that no text can hold; or the disk is full.
    """
    names = None if asked is None else list(filter(None, asked.split(",")))
    found = choose(rows.columns, names)
    plain = {name: values for name, values in found.items() if not any(map(_is_raw, values))}
    lost = [name for name in found if name not in plain]
    if lost and names is not None:
        raise UserError(
            f"columns: {lost[0]!r} holds bytes, which {output} cannot hold. Leave it out."
        )
    return Beside(plain, output)


def put(own: Record, record: Record) -> Record:
    """The input's columns, and then what is predicted.

    A predicted field of the same name as a column is called `predicted_NAME`; but for what a record
    only tells again of its input.
    """
    row = dict(own)
    for name, value in record.items():
        if name in own and name in _ECHOES:
            continue
        while name in own:
            name = f"predicted_{name}"
        row[name] = value
    return row


class Beside:
    """Columns of many rows, in a file without a name: they take no memory, and end with it."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], output: Path) -> None:
        """Writes the rows beside the output.

        Raises:
          UserError: the disk refuses them.
        """
        self._stream = None
        if not columns:
            return
        with explained(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.TemporaryFile(  # noqa: SIM115  it is read until all ends
                "w+", dir=output.parent, encoding="utf-8"
            )
            for values in zip(*columns.values(), strict=True):
                row = {name: _jsonable(v) for name, v in zip(columns, values, strict=True)}
                self._stream.write(json.dumps(row) + "\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Its file goes."""
        if self._stream is not None:
            self._stream.close()

    def rows(self, start: int) -> Iterator[Record]:
        """Those of the rows from `start` on, without an end where there are no columns."""
        if self._stream is None:
            while True:
                yield {}
        self._stream.seek(0)
        for i, line in enumerate(self._stream):
            if i >= start:
                yield json.loads(line)


def _is_raw(value: Any) -> bool:
    """Whether there are bytes in it."""
    if isinstance(value, dict):
        return any(map(_is_raw, value.values()))
    if isinstance(value, list):
        return any(map(_is_raw, value))
    return isinstance(value, bytes)


def _jsonable(value: Any) -> Any:
    """The value as JSON has it: times as ISO 8601 has them, NaN as null."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
