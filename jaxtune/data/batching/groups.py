"""Texts that belong together, of which a batch has all or none, such as a question and its answers.

What lies in a batch is texts, each in a row or a part of a row of its own; groups say which of them
are drawn together.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.data.ragged import offsets_of, places_of


class Groups(NamedTuple):
    """n groups of N texts in all, those of a group one after the other.

    Attributes:
      offsets: the texts of group i are offsets[i] : offsets[i + 1].
    """

    offsets: Int[np.ndarray, " n+1"]

    @property
    def sizes(self) -> Int[np.ndarray, " n"]:
        """Texts of each group."""
        return np.diff(self.offsets)

    @property
    def largest(self) -> int:
        """The most texts of a group."""
        return int(self.sizes.max())

    def texts(self, groups: Int[np.ndarray, " b"]) -> Int[np.ndarray, " m"]:
        """The texts of some groups, group after group.

        Args:
          groups: in any order.
        """
        return places_of(self.offsets[:-1][groups], self.sizes[groups])

    def of(self, texts: Int[np.ndarray, "*m"]) -> Int[np.ndarray, "*m"]:
        """The group of each of some texts."""
        return np.searchsorted(self.offsets, texts, side="right") - 1

    def places(self, texts: Int[np.ndarray, "*m"]) -> Int[np.ndarray, "*m"]:
        """The place of each of some texts in its group, from 0."""
        return texts - self.offsets[self.of(texts)]

    def lengths(
        self, lengths: Int[np.ndarray, " N"], by: Literal["total", "longest"]
    ) -> Int[np.ndarray, " n"]:
        """Tokens by which groups are drawn as single examples are by theirs.

        Args:
          lengths: tokens of each text.
          by: of all texts of a group, or of its longest.
        """
        reduce = np.add if by == "total" else np.maximum
        return reduce.reduceat(lengths, self.offsets[:-1])


def groups_of(sizes: Int[np.ndarray, " n"]) -> Groups:
    """Groups of so many texts each, at least one.

    Args:
      sizes: of n groups.
    """
    return Groups(offsets_of(sizes))
