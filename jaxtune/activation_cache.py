"""Outputs of the frozen layers, kept for each example from one epoch to the next."""

import math
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxtune.data.batches import BatchIndex

Span = tuple[int, int, int, int]
"""(example, row, start, size): where an example lies in a batch."""


class ActivationCache:
    """States of n examples: in memory, or in a file that is mapped into it where they are large.

    Attributes:
      num_bytes: of all states.
      in_memory: whether they are not in a file.
    """

    def __init__(
        self,
        sizes: Int[np.ndarray, " n"],
        shape: tuple[int, ...],
        dtype: Any,
        max_memory_bytes: int,
        folder: Path | None = None,
    ) -> None:
        """Nothing is kept yet, and no memory touched.

        Args:
          sizes: how many states each example has, such as one for each token.
          shape: of a state.
          dtype: that states are kept in.
          max_memory_bytes: more go into a file.
          folder: for the file, which has no name and ends with the process; None for the system's.
        """
        self._offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._filled = np.zeros(len(sizes), bool)
        whole = (int(self._offsets[-1]), *shape)
        dtype = np.dtype(dtype)
        self.num_bytes = math.prod(whole) * dtype.itemsize
        self.in_memory = self.num_bytes <= max_memory_bytes
        if self.in_memory:
            self._states: Any = np.empty(whole, dtype)
        else:
            with tempfile.TemporaryFile(dir=folder) as file:  # the map outlives it
                raw = np.memmap(file, np.uint8, "w+", shape=(self.num_bytes,))
            self._states = raw.view(dtype).reshape(whole)

    def holds(self, indices: Int[np.ndarray, " b"]) -> bool:
        """Whether the states of all these examples are kept."""
        return bool(self._filled[indices].all())

    def put(
        self,
        index: BatchIndex,
        states: Float[np.ndarray, "r t ..."],
        only: Collection[int] | None = None,
    ) -> None:
        """Keeps the states of the examples of a batch, which lie there as `spans` says.

        Args:
          index: the batch.
          states: of all its examples.
          only: the examples to keep; None for all whose states are not kept yet.
        """
        for i, row, start, size in self.spans(index):
            if self._filled[i] if only is None else i not in only:
                continue
            self._states[self._offsets[i] : self._offsets[i + 1]] = states[
                row, start : start + size
            ]
            self._filled[i] = True

    def take(
        self, index: BatchIndex, rows: int, length: int, dtype: Any = np.float32
    ) -> Float[np.ndarray, "r t ..."]:
        """The states of the examples of a batch, laid out as `spans` says; zeros elsewhere.

        Args:
          index: the batch, all of whose states are kept.
          rows: r.
          length: t.
          dtype: of the result.
        """
        found = np.zeros((rows, length, *self._states.shape[1:]), dtype)
        for i, row, start, size in self.spans(index):
            own = slice(self._offsets[i], self._offsets[i + 1])
            found[row, start : start + size] = self._states[own]
        return found

    def take_single(
        self, indices: Int[np.ndarray, " b"], rows: int, dtype: Any = np.float32
    ) -> Float[np.ndarray, "r 1 ..."]:
        """The one state of each of these examples, one in a row; zeros in further rows."""
        found = np.zeros((rows, 1, *self._states.shape[1:]), dtype)
        found[: len(indices), 0] = self._states[self._offsets[indices]]
        return found

    def spans(self, index: BatchIndex) -> Iterator[Span]:
        """Where the states of each example lie: one after the other in its row, from 0 on."""
        rows = index.rows or tuple((place,) for place in range(len(index.indices)))
        for row, places in enumerate(rows):
            start = 0
            for place in places:
                i = int(index.indices[place])
                size = int(self._offsets[i + 1] - self._offsets[i])
                yield i, row, start, size
                start += size
