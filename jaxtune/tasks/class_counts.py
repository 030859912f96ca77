"""Scores of decisions from three counts of each class, with no table of all pairs of classes.

They are the bits of scikit-learn, whose import takes longer than many an evaluation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from jaxtune.data.sources.class_sets import ClassSets


class Counts(NamedTuple):
    """How often each of c classes is right, is decided, and both at once.

    Attributes:
      true: rows that have the class.
      found: rows that are said to have it.
      hits: rows of both kinds.
    """

    true: Int64[np.ndarray, " c"]
    found: Int64[np.ndarray, " c"]
    hits: Int64[np.ndarray, " c"]

    @property
    def macro_f1(self) -> float:
        """The mean of `2 hits / (true + found)` over all classes; 0 for one with neither."""
        return float(np.average(_f1(self.hits, self.true + self.found)))

    @property
    def micro_f1(self) -> float:
        """The F1 of all decisions together."""
        hits, both = self.hits.sum(), self.true.sum() + self.found.sum()
        return float(_f1(hits[None], both[None])[0])

    def occurring(self) -> "Counts":
        """Of the classes that any row has or is said to have."""
        return Counts(*(part[self.true + self.found > 0] for part in self))

    def matthews(self) -> float:
        """The correlation of labels and decisions where each row has one class; 0 of one class.

        Of counts below 2^26 all sums are exact.

        Source: Gorodkin 2004, Comparing two K-category assignments by a K-category correlation
        coefficient, equation 8.
        """
        true, found = self.true.astype(np.float64), self.found.astype(np.float64)
        n, correct = true.sum(), float(self.hits.sum())
        spread = (n**2 - found @ found) * (n**2 - true @ true)
        return float((correct * n - true @ found) / np.sqrt(spread)) if spread else 0.0


def of_classes(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> Counts:
    """Of rows with one class each."""
    size = 1 + int(max(labels.max(), predicted.max()))
    hits = labels[labels == predicted]
    return Counts(*(np.bincount(part, minlength=size) for part in (labels, predicted, hits)))


def of_sets(labels: ClassSets, predicted: ClassSets) -> tuple[Counts, float]:
    """Of rows with any number of classes, and the share of rows with every class right.

    Args:
      labels: of n rows and c classes.
      predicted: of the same rows and at most c classes.
    """
    n, c = labels.shape
    true, found = (_pairs(part, c) for part in (labels, predicted))
    hits = np.intersect1d(true, found, assume_unique=True)
    wrong = np.unique(np.setxor1d(true, found, assume_unique=True) // c)
    counts = (np.bincount(part % c, minlength=c) for part in (true, found, hits))
    return Counts(*counts), (n - len(wrong)) / n


def _pairs(sets: ClassSets, c: int) -> Int64[np.ndarray, " k"]:
    """One number for each pair of a row and a class."""
    rows = np.repeat(np.arange(len(sets.offsets) - 1), np.diff(sets.offsets))
    return rows * c + sets.classes


def _f1(hits: np.ndarray, both: np.ndarray) -> np.ndarray:
    return np.divide(2.0 * hits, both, out=np.zeros(len(both)), where=both > 0)
