"""Whether the first row of a table has names or values."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtune.data.look import names
from jaxtune.data.look.columns import count_words, is_missing
from jaxtune.data.text.labels import number_of


class Shape(NamedTuple):
    """The columns of a table of fields.

    Attributes:
      names: of the columns.
      has_header: whether they are those of the first row.
      width: the most fields of a row.
    """

    names: tuple[str, ...]
    has_header: bool
    width: int


def find_shape(rows: Sequence[Sequence[str]]) -> Shape:
    """The names of the columns: those of the first row, or numbers where it is no header."""
    width = max(map(len, rows))
    first = tuple(rows[0])
    if _is_header(rows):
        return Shape(first, True, width)
    return Shape(tuple(f"column_{i + 1}" for i in range(width)), False, width)


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds names, and no values as those below it."""
    first, rest = rows[0], rows[1:]
    named = [cell for cell in first if cell]  # columns without a name may be several
    if not rest or len({*named}) < len(named):
        return not rest and len({*first}) == len(first)
    known = {name for name in map(names.spell, first) if is_known(name)}
    if any(count_words(cell) > 6 or len(cell) > 60 for cell in first):
        return False
    votes = 2.0 * len(known)
    for place, cell in enumerate(first):
        below = [row[place] for row in rest if len(row) > place and not is_missing(row[place])]
        votes += _vote(cell.strip(), below)
    return votes >= 0 and bool(named)


def is_known(name: str) -> bool:
    """Whether a column is likely to be called so."""
    return names.rank(name, names.LABELS) > 0.5 or names.rank(name, names.TEXTS) > 0.5


def _vote(cell: str, below: Sequence[str]) -> float:
    """Above 0 for a name above values of another kind, below 0 for a value like those below."""
    if not below or not cell:
        return 0.0
    numbers = sum(abs(number_of(value)) < float("inf") for value in below)
    is_number = abs(number_of(cell)) < float("inf")
    if 10 * numbers >= 9 * len(below):
        return -3.0 if is_number else 3.0
    if is_number:
        return -1.0
    if 2 * len({*below}) <= len(below):  # classes
        return -2.0 if cell in below else 1.0
    lengths = sorted(map(len, below))
    if len(cell) > lengths[len(lengths) // 4]:
        return -1.0
    return 1.0 if 2 * len(cell) < lengths[len(lengths) // 2] else 0.0
