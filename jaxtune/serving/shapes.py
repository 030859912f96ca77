"""The few shapes that batches have while a model serves, and what goes into the next of them."""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from jaxtune.data.batching.batches import MULTIPLE
from jaxtune.data.batching.packing import RowShape

_SHORT = (32, 64)  # tokens of the row of a batch that has one
_USUAL, _WIDER = 128, 4  # tokens of a row, and how much longer the next kind of row is
_LOOKED_AT = 2  # batches, of whose examples one is filled


class Grid(NamedTuple):
    """The shapes that batches may have.

    Attributes:
      shapes: cheapest first.
      lengths: tokens of the rows of which a batch may have several, increasing; the longest example
        fits the last.
      packed: whether a row has room for several examples; else each has its own.
    """

    shapes: tuple[RowShape, ...]
    lengths: tuple[int, ...]
    packed: bool

    def slots(self, length: int) -> int:
        """The most examples of a row of so many tokens."""
        return max(length // MULTIPLE, 1) if self.packed else 1

    def rows(self, length: int) -> int:
        """The most rows of a batch whose rows have so many tokens."""
        return max(shape.rows for shape in self.shapes if shape.length == length)


class Filled(NamedTuple):
    """A batch that is not made yet.

    Attributes:
      shape: of the batch.
      rows: in each, the places of its examples among those that were waiting.
    """

    shape: RowShape
    rows: tuple[tuple[int, ...], ...]


def grid_of_texts(longest: int, tokens: int) -> Grid:
    """Rows of a few lengths, and batches of 1, 2, 4, ... of each.

    Args:
      longest: tokens of the longest text that there can be.
      tokens: of the largest batch; that of one row may have more.
    """
    longest = -(-longest // MULTIPLE) * MULTIPLE
    lengths, length = [], _USUAL
    while length < longest:
        lengths.append(length)
        length *= _WIDER
    lengths.append(longest)
    shapes = [RowShape(1, short) for short in _SHORT if short < lengths[0]]
    for length in lengths:
        shapes += [RowShape(rows, length) for rows in _doubled(max(tokens // length, 1))]
    return Grid(tuple(sorted(shapes, key=_cost)), tuple(lengths), packed=True)


def grid_of_images(most: int) -> Grid:
    """Batches of 1, 2, 4, ... images, at most so many."""
    return Grid(tuple(RowShape(rows, 1) for rows in _doubled(most)), (1,), packed=False)


def fill(lengths: Sequence[int], grid: Grid) -> Filled:
    """The next batch of what is waiting: of the first examples those that fill it best.

    Each row begins with the first one that is left, so that none waits for ever, and goes on with
    the longest of the others that it has room for. Only as many are looked at as two batches hold.

    Args:
      lengths: tokens of each example that is waiting, at least one, in the order of their coming.
      grid: the shapes.
    """
    length = next(length for length in grid.lengths if length >= lengths[0])
    most, slots = grid.rows(length), grid.slots(length)
    left = {i: lengths[i] for i in _window(lengths, length, _LOOKED_AT * most * length)}
    by_length = sorted((tokens, i) for i, tokens in left.items())
    rows: list[tuple[int, ...]] = []
    while left and len(rows) < most:
        row, room = [], length
        place = bisect.bisect_left(by_length, (left[next(iter(left))], next(iter(left))))
        while place >= 0 and len(row) < slots:
            tokens, i = by_length.pop(place)
            row.append(i)
            room -= tokens
            del left[i]
            place = bisect.bisect_right(by_length, (room, len(lengths))) - 1
        rows.append(tuple(row))
    used = max(sum(lengths[i] for i in row) for row in rows)
    crowd = max(map(len, rows))
    shape = next(
        shape
        for shape in grid.shapes
        if shape.rows >= len(rows) and shape.length >= used and grid.slots(shape.length) >= crowd
    )
    return Filled(shape, (*rows, *[()] * (shape.rows - len(rows))))


def _window(lengths: Sequence[int], longest: int, tokens: int) -> list[int]:
    """The first examples that fit a row, of so many tokens in all."""
    fitting = [i for i, length in enumerate(lengths) if length <= longest]
    sums = itertools.accumulate(lengths[i] for i in fitting)
    return [i for i, total in zip(fitting, sums, strict=True) if total <= tokens]


def _doubled(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [1 << power for power in range(most.bit_length())]


def _cost(shape: RowShape) -> tuple[int, int]:
    """Tokens of a batch, then of a row."""
    return shape.rows * shape.length, shape.length
