"""The batches of a training run: a function of the seed and the step alone."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.layout import Layout


class Stream(NamedTuple):
    """Training examples in the order in which they come up, epoch after epoch.

    Attributes:
      examples: n of them.
      layout: how they make batches.
      seed: of the run; it orders them, and draws what changes from epoch to epoch.
    """

    examples: Any
    layout: Layout
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass."""
        return self.layout.num_batches(self.examples.lengths)

    def indices(self, step: int = 0) -> Iterator[tuple[BatchIndex, int]]:
        """The examples of each batch from `step` on and where they lie, and the epoch."""
        lengths = self.examples.lengths
        epoch, position = divmod(step, self.steps_per_epoch)
        while True:
            for indices in self.layout.order(lengths, self.seed, epoch)[position:]:
                yield self.layout.place(indices, lengths), epoch
            epoch, position = epoch + 1, 0

    def collate(
        self, index: BatchIndex, epoch: int, rows: slice | None = None
    ) -> dict[str, np.ndarray]:
        """The fields of a batch, or of some of its rows, as `Layout.collate`."""
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
