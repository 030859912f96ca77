"""Rows that cannot be read or learnt from: the one place where they stop a run or are left out.

What reads a file gives a fault, an error that is not raised, in the place of each such record;
what checks a table raises `BadRowsError`. `data.on_bad_row` decides what becomes of both. Of new
data such a row stays, without values, and is told of where its prediction would be.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from jaxtune.core.errors import UserError

_Value = TypeVar("_Value")

OnBadRow = Literal["stop", "skip", "keep"]

_SHOWN = 5


class BadRowsError(UserError):
    """Rows of a table that a check refuses.

    Attributes:
      rows: index of a row -> what is wrong with it; the error's own message is that of the first.
    """

    def __init__(self, rows: Mapping[int, str]) -> None:
        super().__init__(rows[min(rows)])
        self.rows = dict(rows)


class Skipped(NamedTuple):
    """Rows that could not be read.

    Attributes:
      number: of those that were left out.
      first: what is wrong with the first five of these.
      kept: index of each that is still there, without values -> what is wrong with it.
    """

    number: int = 0
    first: tuple[str, ...] = ()
    kept: Mapping[int, str] = MappingProxyType({})

    def __add__(self, other: Any) -> "Skipped":
        """Both together; these come first."""
        first, kept = (*self.first, *other.first)[:_SHOWN], {**self.kept, **other.kept}
        return Skipped(self.number + other.number, first, kept)

    def moved(self, by: int) -> "Skipped":
        """With so many rows before them."""
        return self._replace(kept={i + by: text for i, text in self.kept.items()})

    def note(self, name: str, kept: int) -> str:
        """What a person is told.

        Args:
          name: of the table.
          kept: rows that are left.
        """
        places = "; ".join(text.partition(", but expected")[0][:120] for text in self.first)
        return (
            f"{name}: {self.number} of {self.number + kept} rows skipped by config.data.on_bad_row."
            f" First: {places}"
        )


def sift(
    records: Iterable[tuple[int, _Value | UserError]], on_bad_row: OnBadRow, empty: _Value
) -> tuple[list[tuple[int, _Value]], Skipped]:
    """The records that could be read; with those that could not, where these are kept.

    Args:
      records: place of each in its file, and what was read, or the fault in its place.
      on_bad_row: what becomes of faults.
      empty: stands for a record that is kept.

    Raises:
      UserError: the first fault, where these stop.
    """
    good: list[tuple[int, _Value]] = []
    count, first, kept = 0, [], {}
    for place, value in records:
        if not isinstance(value, UserError):
            good.append((place, value))
            continue
        if on_bad_row == "stop":
            raise value
        if on_bad_row == "keep":
            kept[len(good)] = str(value)
            good.append((place, empty))
            continue
        count += 1
        if count <= _SHOWN:
            first.append(str(value))
    return good, Skipped(count, tuple(first), kept)


def sound_texts(
    records: Iterable[tuple[int, _Value | UserError]], path: str, encoding: str
) -> Iterable[tuple[int, _Value | UserError]]:
    """The records, with a fault in the place of those that hold what is no text."""
    for place, value in records:
        found = None if isinstance(value, UserError) else no_text(value, encoding)
        yield place, value if found is None else UserError(f"{path} line {place}: {found}")


def no_text(value: Any, encoding: str = "utf-8") -> str | None:
    """What is wrong with the strings in a value, nested or not; None where they are all text.

    A half of a surrogate pair cannot be encoded. Bytes that could not be decoded are such halves
    too, as Python's `surrogateescape` has them.
    """
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            parts += part
        elif isinstance(part, str) and not part.isascii():
            try:
                part.encode()
            except UnicodeEncodeError as error:
                code = ord(part[error.start])
                if 0xDC80 <= code <= 0xDCFF:
                    return f"found the byte 0x{code - 0xDC00:02x}, but expected text in {encoding}."
                return (
                    f"found half of a surrogate pair (\\u{code:04x}), but expected text, as if an"
                    " emoji was cut in two. Correct or remove the row."
                )
    return None


def bad_rows(check: Callable[[list[int]], Any], size: int, chunk: int = 256) -> dict[int, str]:
    """All rows that a check refuses, and what is wrong with each.

    Args:
      check: raises `BadRowsError`, with places among the rows that it is given; what else is wrong
        with so few rows is not asked.
      size: rows in all.
      chunk: rows that are checked at a time, for a check may name no more than one.
    """
    found: dict[int, str] = {}
    for start in range(0, size, chunk):
        rows = [*range(start, min(start + chunk, size))]
        while rows:
            try:
                check(rows)
                break
            except BadRowsError as error:
                found |= {rows[i]: text for i, text in error.rows.items()}
                rows = [row for i, row in enumerate(rows) if i not in error.rows]
            except UserError:
                break
    return found
