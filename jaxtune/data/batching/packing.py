"""Several examples in a row: which batches are packed into which shapes, and in which rows.

Packing changes the layout of a batch and not its examples. The batches themselves are drawn so that
each has the same mix of lengths, whatever the layout: then a few shapes fit all of them closely.
"""

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.data.batching.batches import MULTIPLE
from jaxtune.data.batching.groups import Groups
from jaxtune.models.attention_path import USUAL, AttentionCost

_SAMPLED, _FEWEST = 2048, 16  # examples that the shapes are chosen by, and batches of them
_PARTNERS = 32  # rows, the emptiest, with which the fullest one may exchange examples
_QUANTILES = (0.5, 0.9, 1.0)  # of the tokens of a batch, for which numbers of rows are looked at
_TRIED_ROWS = 6  # those of them that batches are packed into
_KNOWN = 8 * _SAMPLED  # examples of a use so short that its own batches are looked at


class RowShape(NamedTuple):
    """The shape of a packed batch: rows, and tokens in each."""

    rows: int
    length: int


class Costs(NamedTuple):
    """What steps cost.

    Attributes:
      attention: of the model.
      own: tokens of a token's example, on the average.
    """

    attention: AttentionCost
    own: float

    def of(self, shape: RowShape) -> float:
        """Of a step, in tokens that attend to nothing."""
        each = self.attention.of_token(shape.length, self.own)
        return shape.rows * shape.length * each


class Use(NamedTuple):
    """What the shapes are for.

    Attributes:
      program: what compiling for one shape costs, in tokens that attend to nothing.
      repeats: how often the batches come up.
      batches: of a split; None for those of one epoch.
      seed: of their order.
      groups: which examples are drawn together, of the one split that there then is.
    """

    program: float
    repeats: int = 1
    batches: int | None = None
    seed: int = 0
    groups: Groups | None = None


class Packing(NamedTuple):
    """The shapes that packed batches may have.

    Attributes:
      shapes: cheapest first; the last has a row for each example.
      slots: the most examples in a row.
    """

    shapes: tuple[RowShape, ...]
    slots: int


def mixed_batches(
    lengths: Int[np.ndarray, " n"], batch_size: int, seed: int, epoch: int
) -> list[Int[np.ndarray, " b"]]:
    """The batches of one epoch, each with as many short and long examples as the others.

    Every example is in one batch. A batch has one example of each of `batch_size` strata of like
    lengths, drawn at random; the n mod `batch_size` examples of the one ragged batch are drawn
    from all.

    Args:
      lengths: tokens of each example.
      batch_size: examples in every batch but the ragged one.
      seed: of the run.
      epoch: from 0.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = rng.permutation(len(lengths))
    ragged, order = np.split(order, [len(lengths) % batch_size])
    strata = order[np.argsort(lengths[order], kind="stable")].reshape(batch_size, -1)
    batches = list(rng.permuted(strata, axis=1).T)
    batches = [rng.permutation(batch) for batch in batches] + ([ragged] if len(ragged) else [])
    return [batches[i] for i in rng.permutation(len(batches))]


def pack(lengths: Sequence[int], rows: int, slots: int | None = None) -> list[list[int]]:
    """Puts examples into rows whose tokens differ as little as can be found quickly.

    Longest first into the emptiest row; then, while that makes the fullest row less full, an
    example of it is moved to another row or exchanged for a shorter one.

    Args:
      lengths: tokens of each example.
      rows: how many.
      slots: the most examples in a row; None for any number.

    Returns:
      The examples of each row; examples beyond `rows * slots` are in none.
    """
    placed: list[list[int]] = [[] for _ in range(rows)]
    sums = [0] * rows
    emptiest = [(0, row) for row in range(rows)]  # a heap
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not emptiest:
            break
        row = emptiest[0][1]
        placed[row].append(i)
        sums[row] += lengths[i]
        if slots is not None and len(placed[row]) == slots:
            heapq.heappop(emptiest)
        else:
            heapq.heapreplace(emptiest, (sums[row], row))
    for _ in range(4 * rows):
        best = _best_exchange(lengths, placed, sums, slots)
        if best is None:
            break
        full, other, i, j = best
        moved = placed[full].pop(i)
        back = None if j is None else placed[other].pop(j)
        placed[other].append(moved)
        if back is not None:
            placed[full].append(back)
        change = lengths[moved] - (0 if back is None else lengths[back])
        sums[full], sums[other] = sums[full] - change, sums[other] + change
    return placed


def choose_packing(
    splits: Sequence[Int[np.ndarray, " n"]],
    batch_size: int,
    num_shapes: int,
    multiple: int = 1,
    attention: AttentionCost = USUAL,
    use: Use | None = None,
) -> Packing:
    """Chooses the shapes in which batches cost least, what compiling for each costs counted.

    Args:
      splits: tokens of each example; no batch is of two splits.
      batch_size: examples of a batch.
      num_shapes: at most so many are chosen for batches as they are to be expected. Two more are
        for others: one with room to spare, and one in which each example has a row of its own.
      multiple: rows are a multiple of it.
      attention: what it costs the model.
      use: what for; None for so many batches that compiling costs nothing.
    """
    every = np.concatenate(splits).astype(float)
    costs = Costs(attention, float((every**2).sum() / max(every.sum(), 1)))
    batches = [part for lengths in splits for part in _sample(lengths, batch_size, use)]
    longest = _up(max(int(lengths.max()) for lengths in splits), MULTIPLE)
    groups = None if use is None else use.groups
    most = batch_size * (1 if groups is None else groups.largest)  # examples of a batch
    alone = RowShape(_up(most, multiple), longest)
    total = max(map(sum, batches))
    spare = RowShape(_up(-(-total * 9 // (8 * longest)), multiple), longest)
    totals = np.quantile([*map(sum, batches)], _QUANTILES)
    room = np.arange(longest, 3 * longest + 1, MULTIPLE)  # of a row
    counts = {_up(int(n), multiple) for n in np.ceil(np.divide.outer(totals, room)).ravel()}
    counts = _promising([n for n in counts if n < alone.rows], batches, costs)
    needed = {rows: np.full(len(batches), longest) for rows in counts}  # length of each batch
    crowd = {rows: np.ones(len(batches), int) for rows in counts}  # examples of its fullest row
    for b, lengths in enumerate(batches):
        for rows in counts:
            found = pack(lengths, rows)
            longest_row = max(sum(lengths[i] for i in row) for row in found)
            needed[rows][b], crowd[rows][b] = _up(longest_row, MULTIPLE), max(map(len, found))
    candidates = {
        RowShape(rows, int(length)): needed[rows] <= length
        for rows in counts
        for length in np.unique(needed[rows])
    }
    program = 0.0 if use is None else use.program / _share(splits, batch_size, use, len(batches))
    each = {shape: np.where(fits, costs.of(shape), np.inf) for shape, fits in candidates.items()}
    chosen = _cheapest(each, num_shapes, costs.of(alone), program)
    others = [spare, alone] if chosen and spare.rows < alone.rows else [alone]
    expected = [shape for shape in chosen if shape not in others]
    slots = [crowd[shape.rows][candidates[shape]].max() for shape in chosen]
    return Packing((*sorted(expected, key=costs.of), *others), int(max(slots, default=1)))


def _promising(counts: list[int], batches: list[list[int]], costs: Costs) -> list[int]:
    """The numbers of rows in which batches would cost least if their tokens could be split."""
    totals, most = (np.array([of(batch) for batch in batches]) for of in (sum, max))

    def bound(rows: int) -> float:
        needed = np.maximum(-(-totals // rows), most)
        return sum(costs.of(RowShape(rows, _up(int(length), MULTIPLE))) for length in needed)

    return sorted(sorted(counts, key=bound)[:_TRIED_ROWS])


def _sample(lengths: Int[np.ndarray, " n"], batch_size: int, use: Use | None) -> list[list[int]]:
    """The lengths of the examples of some batches: of all of a short use.

    Else the ragged one of an epoch is among them only if there is no other.
    """
    groups = None if use is None else use.groups
    drawn = lengths if groups is None else groups.lengths(lengths, "total")
    size, count = min(batch_size, len(drawn)), max(_FEWEST, _SAMPLED // batch_size)
    seed = 0
    if use is not None:
        seed, own = use.seed, _num_batches(lengths, batch_size, use)
        if own * batch_size <= _KNOWN:
            size, count = 0, own
    epochs = (mixed_batches(drawn, batch_size, seed, epoch) for epoch in range(count))
    found = (batch for batches in epochs for batch in batches if len(batch) >= size)
    chosen = itertools.islice(found, count)
    texts = chosen if groups is None else map(groups.texts, chosen)
    return [lengths[batch].tolist() for batch in texts]


def _num_batches(lengths: Int[np.ndarray, " n"], batch_size: int, use: Use) -> int:
    count = len(lengths) if use.groups is None else len(use.groups.sizes)
    return use.batches or -(-count // batch_size)


def _share(
    splits: Sequence[Int[np.ndarray, " n"]], batch_size: int, use: Use, sampled: int
) -> float:
    """How often each of the sampled batches stands for one that comes up."""
    return use.repeats * sum(_num_batches(part, batch_size, use) for part in splits) / sampled


def _cheapest(
    each: Mapping[RowShape, np.ndarray], count: int, most: float, program: float
) -> list[RowShape]:
    """The shapes with the least cost over all batches, each in the cheapest that it fits.

    Args:
      each: by shape, what each of the batches costs in it; infinite where it does not fit.
      count: of shapes at most.
      most: the cost of a batch that fits none.
      program: what a shape costs by itself.
    """

    def total(shapes: Sequence[RowShape]) -> float:
        least = np.min([each[shape] for shape in shapes], axis=0)
        unfit = np.isinf(least)
        return float(np.where(unfit, most, least).sum() + program * (len(shapes) + unfit.any()))

    chosen: list[RowShape] = []
    for _ in range(count):  # one more, whichever helps most
        more = min(([*chosen, shape] for shape in each), key=total, default=chosen)
        if chosen and total(more) >= total(chosen):
            break
        chosen = more
    for place in range(len(chosen)):  # each of them in the light of the later ones
        others = [shape for i, shape in enumerate(chosen) if i != place]
        chosen = min(([*others, shape] for shape in each), key=total)
    return [shape for shape in set(chosen) if each[shape].min() < most]


def place(lengths: Sequence[int], packing: Packing) -> tuple[RowShape, tuple[tuple[int, ...], ...]]:
    """The cheapest shape that holds some examples, and the examples of each of its rows.

    Args:
      lengths: tokens of each example, no more of them than a batch has.
      packing: the shapes.
    """
    for shape in packing.shapes[:-1]:
        if sum(lengths) > shape.rows * shape.length or max(lengths, default=0) > shape.length:
            continue
        rows = pack(lengths, shape.rows, packing.slots)
        whole = sum(map(len, rows)) == len(lengths)
        if whole and all(sum(lengths[i] for i in row) <= shape.length for row in rows):
            return shape, tuple(map(tuple, rows))
    alone = packing.shapes[-1]
    return alone, tuple((i,) if i < len(lengths) else () for i in range(alone.rows))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _best_exchange(
    lengths: Sequence[int], placed: list[list[int]], sums: list[int], slots: int | None
) -> tuple[int, int, int, int | None] | None:
    """(fullest row, other row, place in the one, place in the other or None for a mere move)."""
    full = max(range(len(sums)), key=sums.__getitem__)
    own = [lengths[i] for i in placed[full]]
    best, found = 0, None
    for other in heapq.nsmallest(_PARTNERS, range(len(sums)), key=sums.__getitem__):
        gap = sums[full] - sums[other]
        most = gap // 2  # what the best of exchanges gains: both rows are then alike
        if most <= best:
            break  # the rows after this one are fuller still
        partners = [lengths[i] for i in placed[other]]
        if slots is None or len(placed[other]) < slots:
            partners.append(0)  # none: a mere move
        for i, mine in enumerate(own):
            for j, theirs in enumerate(partners):
                change = mine - theirs
                gain = change if change <= most else gap - change
                if gain > best:
                    best, found = gain, (full, other, i, j if j < len(placed[other]) else None)
    return found
