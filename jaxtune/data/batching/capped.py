"""Batches of like lengths with a limit on their tokens: those of long examples have fewer rows.

An epoch has as many batches as without a limit, n / batch_size: what the long ones have fewer of,
the short ones have more of, so that the steps of a run, and what a step learns from on average, are
as they were.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

_FREE = 512  # tokens that a row may always have
_MEANS = 4  # times the mean length, for rows of more


class Caps(NamedTuple):
    """Of the batches of each padded length.

    Attributes:
      rows: the most examples of one.
      numbers: how many there are in an epoch of training; 0 for as few as hold all examples.
    """

    rows: tuple[int, ...]
    numbers: tuple[int, ...]


def choose_caps(
    lengths: Int[np.ndarray, " n"], shapes: Sequence[int], batch_size: int
) -> Caps | None:
    """Rows of the training batches of each padded length.

    A batch has at most `batch_size * max(512, 4 m)` tokens, where m is the mean length, or one row;
    those of the other lengths have as many rows as it takes to have ceil(n / batch_size) in all.

    Args:
      lengths: tokens of each example.
      shapes: padded lengths, increasing, from `choose_lengths`.
      batch_size: examples of a batch, on average.

    Returns:
      None where no length is beyond the limit, or there are too few batches.
    """
    limited, counts = limit_caps(lengths, shapes, batch_size), _counts(lengths, shapes)
    if limited is None:
        return None
    total = -(-len(lengths) // batch_size)
    rows = np.array(limited.rows)
    is_long = rows < batch_size
    left = total - int(-(-counts[is_long] // rows[is_long]).sum())
    own = counts[~is_long & (counts > 0)]
    if left < len(own) or (left and not len(own)):
        return None
    numbers = np.zeros(len(shapes), np.int64)
    numbers[is_long] = -(-counts[is_long] // rows[is_long])
    numbers[~is_long & (counts > 0)] = _shared(own, left)
    rows = np.where(numbers > 0, -(-counts // np.maximum(numbers, 1)), rows)
    rows[~is_long] = rows[~is_long].max()  # one shape for what is kept of an example alone
    return Caps(tuple(rows.tolist()), tuple(numbers.tolist()))


def limit_caps(
    lengths: Int[np.ndarray, " n"], shapes: Sequence[int], batch_size: int
) -> Caps | None:
    """Of an evaluation, with at most `batch_size` rows; None where all lengths have so many."""
    most = batch_size * max(_FREE, round(_MEANS * float(lengths.mean())) if len(lengths) else 0)
    rows = tuple(max(1, min(batch_size, most // length)) for length in shapes)
    return None if min(rows) == batch_size else Caps(rows, (0,) * len(rows))


def num_batches(lengths: Int[np.ndarray, " n"], shapes: Sequence[int], caps: Caps) -> int:
    """How many batches `train_order` makes."""
    return int(_numbers(_counts(lengths, shapes), caps).sum())


def train_order(
    lengths: Int[np.ndarray, " n"], shapes: Sequence[int], caps: Caps, seed: int, epoch: int
) -> list[Int[np.ndarray, " b"]]:
    """The batches of one epoch: every example once, each with examples of one padded length.

    Args:
      lengths: tokens of each example.
      shapes: padded lengths, increasing.
      caps: of the batches of each of them.
      seed: of the run.
      epoch: from 0.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = rng.permutation(len(lengths))
    bucket = np.searchsorted(np.asarray(shapes), lengths)[order]
    batches: list[Int[np.ndarray, " b"]] = []
    for b, number in enumerate(_numbers(_counts(lengths, shapes), caps).tolist()):
        batches += np.array_split(order[bucket == b], number) if number else []
    return [batches[i] for i in rng.permutation(len(batches))]


def eval_order(
    lengths: Int[np.ndarray, " n"], shapes: Sequence[int], caps: Caps
) -> list[Int[np.ndarray, " b"]]:
    """Batches of one padded length each, shortest first; every example once."""
    order = np.argsort(lengths, kind="stable")
    bucket = np.searchsorted(np.asarray(shapes), lengths)[order]
    parts = [(order[bucket == b], most) for b, most in enumerate(caps.rows)]
    return [part[i : i + most] for part, most in parts for i in range(0, len(part), most)]


def _counts(lengths: Int[np.ndarray, " n"], shapes: Sequence[int]) -> Int[np.ndarray, " s"]:
    """Examples of each padded length."""
    return np.bincount(np.searchsorted(np.asarray(shapes), lengths), minlength=len(shapes))


def _numbers(counts: Int[np.ndarray, " s"], caps: Caps) -> Int[np.ndarray, " s"]:
    """Batches of each padded length; of other examples than the caps were chosen by, enough."""
    enough = -(-counts // np.asarray(caps.rows))
    return np.minimum(np.maximum(enough, caps.numbers), counts)


def _shared(counts: Int[np.ndarray, " s"], total: int) -> Int[np.ndarray, " s"]:
    """Batches of each of some lengths, `total` in all, of rows as equal in number as can be."""
    numbers = np.ones(len(counts), np.int64)
    for _ in range(total - len(counts)):
        numbers[np.argmax(counts / numbers)] += 1
    return numbers
