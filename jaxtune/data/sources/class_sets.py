"""Any number of classes for each row, kept as what they are: a matrix only of the rows in work."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

from jaxtune.data.ragged import offsets_of, places_of


class ClassSets(NamedTuple):
    """The classes of n rows, of c classes: what n x c flags would say.

    Attributes:
      classes: index of each class that applies, row after row, none twice in a row.
      offsets: those of row i are the slice offsets[i] : offsets[i + 1].
      num_classes: c.
    """

    classes: Int32[np.ndarray, " k"]
    offsets: Int64[np.ndarray, " n+1"]
    num_classes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Of the flags."""
        return len(self.offsets) - 1, self.num_classes

    @property
    def dtype(self) -> np.dtype:
        """Of the flags."""
        return np.dtype(np.float32)

    @property
    def counts(self) -> Int64[np.ndarray, " c"]:
        """How many rows have each class."""
        return np.bincount(self.classes, minlength=self.num_classes)

    def take(self, rows: Int[np.ndarray, " m"]) -> "ClassSets":
        """Some rows, in that order."""
        sizes = np.diff(self.offsets)[rows]
        places = places_of(self.offsets[:-1][rows], sizes)
        return ClassSets(self.classes[places], offsets_of(sizes), self.num_classes)

    def flags(self, rows: Any = slice(None)) -> Float32[np.ndarray, "m c"]:
        """1 where a class applies, 0 where not, of some rows."""
        part = self.take(np.atleast_1d(np.arange(len(self.offsets) - 1)[rows]))
        flags = np.zeros(part.shape, np.float32)
        flags[np.repeat(np.arange(part.shape[0]), np.diff(part.offsets)), part.classes] = 1.0
        return flags


def of_pairs(
    rows: Int[np.ndarray, " p"], classes: Int[np.ndarray, " p"], num_rows: int, num_classes: int
) -> ClassSets:
    """Class sets of pairs of a row and a class, in any order; one that stands twice counts once."""
    order = np.unique(np.asarray(rows, np.int64) * num_classes + np.asarray(classes, np.int64))
    owners, found = np.divmod(order, max(num_classes, 1))
    sizes = np.bincount(owners, minlength=num_rows)
    return ClassSets(found.astype(np.int32), offsets_of(sizes), num_classes)


def of_flags(flags: Any) -> ClassSets:
    """Class sets of a matrix whose values above one half are flags; class sets are as they are."""
    if isinstance(flags, ClassSets):
        return flags
    flags = np.asarray(flags) > 0.5
    sizes = np.count_nonzero(flags, axis=1)
    return ClassSets(np.nonzero(flags)[1].astype(np.int32), offsets_of(sizes), flags.shape[1])
