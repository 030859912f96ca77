"""The batches of a training run: a function of the seed and the step alone."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.class_sampling import ClassSampling
from jaxtune.data.batching.groups import Groups
from jaxtune.data.batching.layout import Layout


class Stream(NamedTuple):
    """Training examples in the order in which they come up, epoch after epoch.

    Attributes:
      examples: n of them.
      layout: how they make batches.
      seed: of the run; it orders them, and draws what changes from epoch to epoch.
      sampling: which of them an epoch has; None for all, each once.
      groups: which of them are drawn together; None where each is drawn by itself.
    """

    examples: Any
    layout: Layout
    seed: int
    sampling: ClassSampling | None = None
    groups: Groups | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass."""
        return self.layout.num_batches(self._drawn())

    def indices(self, step: int = 0) -> Iterator[tuple[BatchIndex, int]]:
        """The examples of each batch from `step` on and where they lie, and the epoch.

        Where an epoch may have an example more than once, the number of the batch stands for the
        epoch, from which follows what is drawn for an example: or its copies would be alike.
        """
        lengths, sampling, groups = self.examples.lengths, self.sampling, self.groups
        drawn = self._drawn()
        epoch, position = divmod(step, self.steps_per_epoch)
        while True:
            rows = None if sampling is None else sampling.rows(self.seed, epoch)
            own = drawn if rows is None else drawn[rows]
            for indices in self.layout.order(own, self.seed, epoch)[position:]:
                chosen = indices if rows is None else rows[indices]
                chosen = chosen if groups is None else groups.texts(chosen)
                yield self.layout.place(chosen, lengths), epoch if rows is None else step
                step += 1
            epoch, position = epoch + 1, 0

    def collate(
        self, index: BatchIndex, epoch: int, rows: slice | None = None
    ) -> dict[str, np.ndarray]:
        """The fields of a batch, or of some of its rows, as `Layout.collate`; see `indices`."""
        return self.layout.collate(self.examples, index, (self.seed, epoch), rows)

    def empty(self) -> dict[str, np.ndarray]:
        """A batch of the largest shape that is expected, without any example."""
        return self.collate(self.layout.empty(), 0)

    def shapes(self, step: int, count: int) -> Iterator[dict[str, np.ndarray]]:
        """The shapes of `count` batches from `step` on, each once: batches without any example."""
        seen = set()
        for index, _ in itertools.islice(self.indices(step), count):
            shape = self.layout.num_rows(index), index.length
            if shape not in seen:
                seen.add(shape)
                yield self.collate(index.emptied(), 0)

    def num_tokens(self, index: BatchIndex) -> int:
        """Real tokens of a batch, without padding."""
        return int(self.examples.lengths[index.indices].sum())

    def _drawn(self) -> Int[np.ndarray, " n"]:
        """Tokens of each example, or group of them, as batches are drawn by."""
        lengths, groups = self.examples.lengths, self.groups
        return lengths if groups is None else self.layout.drawn_by(lengths, groups)
