"""Which rows an epoch has where rare classes are to come up more often than their rows do.

A function of (seed, epoch) alone, as the order of the rows is, so a resumed run has the same ones.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

_STREAM = 2**16  # apart from what orders the rows of an epoch


class ClassSampling(NamedTuple):
    """How many rows of each class an epoch has.

    Attributes:
      members: the rows of each class, by class; of a class without any, none.
      numbers: how many an epoch has of each.
    """

    members: tuple[Int[np.ndarray, " m"], ...]
    numbers: tuple[int, ...]

    def rows(self, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
        """The rows of an epoch, by class; some more than once, some not at all.

        Each class goes through its rows in shuffled passes, one after the other, and an epoch takes
        up where the last one ended: over epochs no row of a class is ahead of another by two.

        Args:
          seed: of the run.
          epoch: from 0.
        """
        found = []
        for label, (members, number) in enumerate(zip(self.members, self.numbers, strict=True)):
            start, stop = epoch * number, (epoch + 1) * number
            while start < stop:
                done, place = divmod(start, len(members))
                if place == 0 and stop - start >= len(members):  # whole passes, of any order
                    times = (stop - start) // len(members)
                    found.append(np.repeat(members, times))
                    start += times * len(members)
                    continue
                sequence = np.random.SeedSequence([seed, done], spawn_key=(_STREAM, label))
                shuffled = np.random.Generator(np.random.Philox(sequence)).permutation(members)
                found.append(shuffled[place : place + stop - start])
                start += len(found[-1])
        return np.concatenate(found)

    def lengths(self, lengths: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
        """Tokens of the examples of an epoch, as they are to be expected; the longest is of all.

        Args:
          lengths: tokens of each example of the data.
          seed: of the run.
        """
        own = lengths[self.rows(seed, 0)]
        own[np.argmax(own)] = lengths.max()
        return own


def choose_sampling(labels: Int[np.ndarray, " n"], power: float) -> ClassSampling:
    """The rows of each class in epochs of n rows.

    With n_c rows of class c, its share of an epoch is `n_c^(1 - power) / sum_k n_k^(1 - power)`.

    Args:
      labels: class of each row.
      power: 0 as the rows are, 1 every class as often as every other.

    Source: Mahajan et al. 2018, Exploring the Limits of Weakly Supervised Pretraining, section 2.2,
    of which power 0.5 is the square-root sampling.
    """
    counts = np.bincount(labels)
    shares = np.where(counts > 0, np.maximum(counts, 1) ** (1.0 - power), 0.0)
    wanted = shares / shares.sum() * len(labels)
    numbers = np.floor(wanted).astype(int)
    most = np.argsort(numbers - wanted, kind="stable")  # who loses most by rounding down
    numbers[most[: len(labels) - numbers.sum()]] += 1
    members = tuple(np.flatnonzero(labels == label) for label in range(len(counts)))
    return ClassSampling(members, tuple(numbers.tolist()))
