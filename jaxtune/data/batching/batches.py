"""From examples of any length to batches of a few fixed shapes.

The order is a function of (seed, epoch), and a batch of the order's position, so the pipeline has
no state of its own: a run that is resumed at step n makes the same batch n.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

MULTIPLE = 8  # lengths are multiples of it, which the vector units of CPUs and GPUs like


class Span(NamedTuple):
    """Where an example lies in a batch.

    Attributes:
      example: its index in the data.
      place: its place in the batch's `indices`.
      row: of the batch.
      slot: its place among the examples of the row.
      start: of its first item in the row, such as a token.
      stop: the one after its last.
    """

    example: int
    place: int
    row: int
    slot: int
    start: int
    stop: int


class BatchIndex(NamedTuple):
    """Which examples a batch holds, and where.

    Attributes:
      indices: of the examples.
      length: tokens of a row.
      rows: of a packed batch, the places in `indices` of the examples of each row; None where each
        example has a row of its own.
      slots: of a packed batch, the most examples that a row may have.
    """

    indices: Int[np.ndarray, " n"]
    length: int
    rows: tuple[tuple[int, ...], ...] | None = None
    slots: int = 1

    def part(self, rows: slice) -> "BatchIndex":
        """The examples of some rows of the batch, as a batch of these rows alone."""
        if self.rows is not None:
            return self._replace(rows=self.rows[rows])
        return self._replace(indices=self.indices[rows])

    def emptied(self) -> "BatchIndex":
        """A batch of that shape without any example."""
        rows = None if self.rows is None else ((),) * len(self.rows)
        return self._replace(indices=self.indices[:0], rows=rows)

    def spans(self, sizes: Int[np.ndarray, " n"]) -> Iterator[Span]:
        """Where each example lies: one after the other in its row, from 0 on.

        Args:
          sizes: items of each example of the data, such as its tokens.
        """
        alone = ((place,) for place in range(len(self.indices)))
        for row, places in enumerate(alone if self.rows is None else self.rows):
            start = 0
            for slot, place in enumerate(places):
                example = int(self.indices[place])
                stop = start + int(sizes[example])
                yield Span(example, place, row, slot, start, stop)
                start = stop


def choose_lengths(
    lengths: Int[np.ndarray, " n"], num_shapes: int, limit: int | None = None
) -> tuple[int, ...]:
    """Chooses the padded lengths that leave the least padding.

    Dynamic programming over the histogram of lengths, rounded up to multiples of 8: with the
    longest first j lengths covered by k shapes at a cost of the tokens they are padded to.

    Args:
      lengths: tokens of each example.
      num_shapes: at most so many lengths are chosen.
      limit: the positions that the model has, where they are no multiple of 8; no length is more.

    Returns:
      Increasing lengths in tokens; the last one holds the longest example.
    """
    rounded = -(-lengths // MULTIPLE)
    candidates, counts = np.unique(rounded, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])  # examples shorter than candidate j
    n = len(candidates)
    cost = np.full((num_shapes + 1, n + 1), np.inf)
    cost[:, 0] = 0.0
    previous = np.zeros((num_shapes + 1, n + 1), np.int64)
    for k in range(1, num_shapes + 1):
        for j in range(1, n + 1):
            padded = cost[k - 1, :j] + candidates[j - 1] * (below[j] - below[:j])
            previous[k, j] = np.argmin(padded)
            cost[k, j] = padded[previous[k, j]]
    chosen, j = [], n
    for k in range(num_shapes, 0, -1):
        if j == 0:
            break
        chosen.append(int(candidates[j - 1]) * MULTIPLE)
        j = previous[k, j]
    return tuple(sorted(min(length, limit or length) for length in chosen))


def train_order(
    lengths: Int[np.ndarray, " n"], shapes: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[BatchIndex]:
    """The batches of one epoch: every example once, in ceil(n / batch_size) batches.

    Examples are shuffled, gathered by padded length, and the batches shuffled again. The few that
    do not fill a batch of their length share one with longer examples.

    Args:
      lengths: tokens of each example.
      shapes: padded lengths, increasing, from `choose_lengths`.
      batch_size: examples in every batch but the ragged one.
      seed: of the run.
      epoch: from 0.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    padded = np.asarray(shapes)
    bucket = np.searchsorted(padded, lengths)
    order = rng.permutation(len(lengths))
    batches, rest = [], []
    for b, length in enumerate(shapes):
        members = order[bucket[order] == b]
        full = len(members) // batch_size * batch_size
        batches += [BatchIndex(part, length) for part in members[:full].reshape(-1, batch_size)]
        rest.append(members[full:])
    left = np.concatenate([*rest, order[:0]])  # ordered by padded length; none of no examples
    for start in range(0, len(left), batch_size):
        part = left[start : start + batch_size]
        batches.append(BatchIndex(part, int(padded[bucket[part[-1]]])))
    return [batches[i] for i in rng.permutation(len(batches))]


def eval_order(
    lengths: Int[np.ndarray, " n"], shapes: Sequence[int], batch_size: int
) -> list[BatchIndex]:
    """Batches of like lengths, shortest first; every example once."""
    order = np.argsort(lengths, kind="stable")
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    padded = np.asarray(shapes)
    return [
        BatchIndex(part, int(padded[np.searchsorted(padded, lengths[part[-1]])])) for part in parts
    ]


def padding_waste(
    order: Sequence[BatchIndex], lengths: np.ndarray, num_rows: Callable[[BatchIndex], int]
) -> float:
    """Share of the computed tokens that are padding, 0 to 1."""
    computed = sum(index.length * num_rows(index) for index in order)
    real = sum(int(lengths[index.indices].sum()) for index in order)
    return 1.0 - real / computed if computed else 0.0
