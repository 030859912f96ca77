"""Which rows to hold out or to keep, when the data itself does not say."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float64, Int, Int64

from jaxtune.core.errors import UserError

_SPLIT_OFF, _SUBSAMPLE = 0, 1
"""Keep the two draws of one seed independent of each other."""


def split_off(
    keys: Sequence[Hashable],
    strata: Int[np.ndarray, " n"] | None,
    size: float,
    seed: int,
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, " held"]]:
    """Holds out a random part of the rows, by class, and never part of a group of duplicates.

    Rows with equal keys are one group. Class by class, groups are drawn in random order as long as
    they fit into what is left of the classes' exact shares, sum_{i<=c} size * n_i / n: the
    rounding of one class is made good by the next. The last group of a class is never held out;
    what such a class cannot give is shared among the others.

    Args:
      keys: n hashable keys, equal for rows that must stay together (say, of the same text).
      strata: Class of each row, integer [n]; None draws from all rows alike. A group whose
        rows differ in class counts for the class of most of them.
      size: How many rows to hold out: a count if it is an int, a fraction of n if a float.
      seed: Non-negative; the same seed gives the same split on every machine.

    Returns:
      Indices of the rows kept and of those held out, int64, ascending. The total is exact, and
      each class at most one off its share, as long as there are rows without duplicates to fill
      up with; else both are off by at most the largest group.

    Raises:
      UserError: `size` is not between 0 and n, fewer rows than classes on either side, or too
        many duplicates.
    """
    n = len(keys)
    wanted = _count(size, n)
    class_of = _classes(strata, n)
    rows = np.bincount(class_of)
    if min(wanted, n - wanted) < len(rows):
        raise UserError(
            f"Cannot hold out {wanted} of {n} rows: found {len(rows)} classes, but expected at "
            "least one row of each on either side. Change the size, name a validation file, or "
            "check config.data.label_column."
        )
    group = _groups(keys)
    sizes = np.bincount(group)
    order = _order(len(sizes), seed, _SPLIT_OFF)
    held = np.isin(group, _draw(sizes, _majority(group, class_of), rows, wanted, order, spare=1))
    if abs(held.sum() - wanted) > sizes.max() or held.all() or not held.any():
        raise UserError(
            f"Cannot hold out {wanted} of {n} rows: rows with the same text stay together, and "
            f"found only {len(sizes)} different texts (the most frequent {sizes.max()} times) in "
            f"{len(rows)} classes. Remove duplicates, change the size, or name a validation file."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def subsample(
    num_rows: int, strata: Int[np.ndarray, " n"] | None, size: int | None, seed: int
) -> Int64[np.ndarray, " m"]:
    """A random subset of the rows in which every class has its share.

    Args:
      num_rows: n.
      strata: Class of each row, integer [n]; None draws from all rows alike.
      size: How many rows to draw; None, or n and more, takes them all.
      seed: Non-negative; the same seed gives the same subset on every machine.

    Returns:
      int64 [min(size, n)], ascending. Each class's number is at most one off its exact share.

    Raises:
      UserError: `size` is less than 1.
    """
    if size is None or size >= num_rows:
        return np.arange(num_rows, dtype=np.int64)
    if size < 1:
        raise UserError(
            f"Cannot draw {size} of {num_rows} rows: expected a size of at least 1, or none for "
            "all rows."
        )
    class_of = _classes(strata, num_rows)
    order = _order(num_rows, seed, _SUBSAMPLE)
    one_each = np.ones(num_rows, np.int64)
    return np.sort(_draw(one_each, class_of, np.bincount(class_of), size, order, spare=0))


def overlap(train_keys: Sequence[Hashable], held_keys: Sequence[Hashable]) -> int:
    """The number of held-out rows whose key is also the key of a training row."""
    known = set(train_keys)
    return sum(key in known for key in held_keys)


def _count(size: float, n: int) -> int:
    """The size as a number of rows."""
    is_fraction = isinstance(size, float)
    if not (0 < size < 1 if is_fraction else 0 < size < n):
        raise UserError(
            f"Cannot hold out {size!r} of {n} rows: expected a whole number of rows from 1 to "
            f"{n - 1}, or a fraction between 0.0 and 1.0."
        )
    return round(size * n) if is_fraction else int(size)


def _order(n: int, seed: int, draw: int) -> Int64[np.ndarray, " n"]:
    """A random permutation. Raw Philox bits, unlike Generator's methods, never change."""
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(draw,)))
    return np.argsort(bits.random_raw(n), kind="stable")


def _groups(keys: Sequence[Hashable]) -> Int64[np.ndarray, " n"]:
    """The group of each row, numbered by first appearance, so that hashes play no part."""
    ids: dict[Hashable, int] = {}
    return np.fromiter((ids.setdefault(key, len(ids)) for key in keys), np.int64, len(keys))


def _classes(strata: Int[np.ndarray, " n"] | None, n: int) -> Int64[np.ndarray, " n"]:
    """The strata numbered from 0 without gaps."""
    if strata is None:
        return np.zeros(n, np.int64)
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)


def _majority(
    group: Int64[np.ndarray, " n"], class_of: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " g"]:
    """The class of most rows of each group; of several such, the lowest."""
    num_classes = class_of.max() + 1
    pairs, counts = np.unique(group * num_classes + class_of, return_counts=True)
    groups, classes = np.divmod(pairs, num_classes)
    order = np.lexsort((classes, -counts, groups))
    return classes[order][np.unique(groups[order], return_index=True)[1]]


def _draw(
    sizes: Int64[np.ndarray, " g"],
    class_of: Int64[np.ndarray, " g"],
    rows: Int64[np.ndarray, " c"],
    wanted: int,
    order: Int64[np.ndarray, " g"],
    spare: int,
) -> Int64[np.ndarray, " drawn"]:
    """Draws groups in `order`, each class its share, leaving `spare` groups of every class."""
    by_class = order[np.argsort(class_of[order], kind="stable")]
    members = np.split(by_class, np.cumsum(np.bincount(class_of, minlength=len(rows)))[:-1])
    candidates = [groups[: max(len(groups) - spare, 0)] for groups in members]
    caps = np.array([sizes[groups].sum() for groups in candidates], np.float64)
    quotas = _quotas(rows, caps, wanted)
    drawn: list[int] = []
    held, target = 0, 0.0
    # The most frequent class comes last: it has the rows to make good what rare ones cannot give.
    for c in np.argsort(rows, kind="stable"):
        target += quotas[c]
        for group, size in zip(candidates[c].tolist(), sizes[candidates[c]].tolist(), strict=True):
            if held + size <= target + 0.5:
                drawn.append(group)
                held += size
            if held + 0.5 > target:
                break
    return np.array(drawn, np.int64)


def _quotas(
    rows: Int64[np.ndarray, " c"], caps: Float64[np.ndarray, " c"], wanted: int
) -> Float64[np.ndarray, " c"]:
    """Rows to draw from each class: in proportion to its rows, but at most its cap."""
    free = np.ones(len(rows), bool)
    while free.any():
        rate = (wanted - caps[~free].sum()) / rows[free].sum()
        over = free & (rate * rows > caps)
        if not over.any():
            return np.where(free, rate * rows, caps)
        free &= ~over
    return caps
