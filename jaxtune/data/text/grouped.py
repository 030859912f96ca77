"""Examples that are groups of texts, such as an anchor, its positive and some negatives."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.groups import Groups
from jaxtune.data.text.examples import Draw, Examples, Fields
from jaxtune.data.text.tokens import Tokens


class GroupLabels(NamedTuple):
    """What a loss is made by.

    Attributes:
      groups: which texts belong together.
      values: of each text, float32 [N], such as the score of its pair; None where there are none.
    """

    groups: Groups
    values: np.ndarray | None


class GroupedExamples(NamedTuple):
    """N texts in n groups. A batch has texts, and all of a group or none.

    Batches index texts, not groups: lengths, layouts, kept activations, noise and outputs are of
    each text, as of an example by itself. `Stream` draws groups.

    Attributes:
      texts: each is one example; labels, where there are any, are of each text, float32 [N].
      groups: which of them belong together.
    """

    texts: Examples
    groups: Groups

    @property
    def tokens(self) -> Tokens:
        """Of each text."""
        return self.texts.tokens

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Tokens of each text."""
        return self.texts.lengths

    @property
    def labels(self) -> GroupLabels:
        """Groups, and the labels of the texts."""
        values = self.texts.labels
        return GroupLabels(self.groups, None if values is None else np.asarray(values))

    @property
    def info(self) -> Sequence[Any]:
        """As of the texts."""
        return self.texts.info

    @property
    def is_random(self) -> bool:
        """Whether a text changes from epoch to epoch."""
        return self.texts.is_random

    @property
    def mixes(self) -> bool:
        """Whether training mixes the examples of a batch: never."""
        return False

    def collate(self, index: BatchIndex, batch_size: int, draw: Draw | None = None) -> Fields:
        """The texts of a batch as `Examples.collate` lays them, padded or packed.

        Returns:
          Its fields, and int32 [b], or [b s] of packed rows: `group_ids`, the index of the group in
          the data, and `members`, the place of the text in its group, from 0. Where the `weight`
          is 0 they mean nothing.
        """
        return self._named(self.texts.collate(index, batch_size, draw))

    def collate_labels(self, indices: Int[np.ndarray, " b"], batch_size: int) -> Fields:
        """What `collate` says of whole texts."""
        return self._named(self.texts.collate_labels(indices, batch_size))

    def _named(self, batch: Fields) -> Fields:
        ids = batch["example_ids"]
        found = {"group_ids": self.groups.of(ids), "members": self.groups.places(ids)}
        return batch | {name: values.astype(np.int32) for name, values in found.items()}

    def __repr__(self) -> str:
        """Sizes, not contents."""
        return f"GroupedExamples({len(self.groups.sizes)} groups of {self.texts!r})"
