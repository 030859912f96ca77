"""Outputs of the frozen layers, kept for each example from one epoch to the next."""

import math
import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxtune.core.units import human_bytes
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.io.disk import explained

_FROZEN = ("the kept states of frozen layers", "Set config.activation_cache.enabled=false")
"""What is kept, and what to do where there is no room for it."""


class ActivationCache:
    """States of n examples: in memory, or in a file that is mapped into it where they are large.

    Attributes:
      sizes: states of each example.
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
        owned: Bool[np.ndarray, " n"] | None = None,
        told: tuple[str, str] = _FROZEN,
    ) -> None:
        """Nothing is kept yet, and no memory touched.

        Args:
          sizes: how many states each example has, such as one for each token.
          shape: of a state.
          dtype: that states are kept in.
          max_memory_bytes: more go into a file.
          folder: for the file, which has no name and ends with the process; None for the system's.
          owned: the examples whose states are kept here, where several processes share them; None
            for all.
          told: what is kept, and what to do where there is no room, for messages.

        Raises:
          UserError: there is no room for the file.
        """
        self.sizes = sizes
        kept = sizes if owned is None else np.where(owned, sizes, 0)
        self._offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        self._owned = np.ones(len(sizes), bool) if owned is None else owned
        self._filled = np.zeros(len(sizes), bool)
        whole = (int(self._offsets[-1]), *shape)
        dtype = np.dtype(dtype)
        self.num_bytes = math.prod(whole) * dtype.itemsize
        self.in_memory = self.num_bytes <= max_memory_bytes
        if self.in_memory:
            self._states: Any = np.empty(whole, dtype)
        else:
            what = f"{told[0]}, {human_bytes(self.num_bytes)} in a file in"
            with (
                explained(f"{what} {folder or tempfile.gettempdir()}", f"{told[1]}, or make room"),
                tempfile.TemporaryFile(dir=folder) as file,  # the map outlives it
            ):
                if hasattr(os, "posix_fallocate"):  # else a full disk ends the process by a signal
                    os.posix_fallocate(file.fileno(), 0, self.num_bytes)
                raw = np.memmap(file, np.uint8, "w+", shape=(self.num_bytes,))
            self._states = raw.view(dtype).reshape(whole)

    def holds(self, indices: Int[np.ndarray, " b"]) -> bool:
        """Whether the states of all these examples are kept, by some process."""
        return bool(self._filled[indices].all())

    def put(
        self,
        index: BatchIndex,
        states: Float[np.ndarray, "r t ..."],
        only: Collection[int] | None = None,
    ) -> None:
        """Keeps the states of the examples of a batch, which lie there as `BatchIndex.spans` says.

        Args:
          index: the batch.
          states: of all its examples.
          only: the examples to keep; None for all whose states are not kept yet.
        """
        left = None if only is None else set(only)
        for i, _, row, _, start, stop in index.spans(self.sizes):
            if self._filled[i] if left is None else i not in left:
                continue
            if left is not None:
                left.discard(i)  # of several copies in a batch, the first
            if self._owned[i]:
                self._states[self._own(i)] = states[row, start:stop]
            self._filled[i] = True

    def take(self, index: BatchIndex, rows: int, length: int) -> Float[np.ndarray, "r t ..."]:
        """The states of the examples of a batch, float32, where they lie.

        Zeros elsewhere, and for examples of other processes.

        Args:
          index: the batch, all of whose states are kept.
          rows: r.
          length: t.
        """
        found = np.zeros((rows, length, *self._states.shape[1:]), np.float32)
        for i, _, row, _, start, stop in index.spans(self.sizes):
            if self._owned[i]:
                found[row, start:stop] = self._states[self._own(i)]
        return found

    @property
    def values(self) -> Float[np.ndarray, "m ..."]:
        """The states of all examples, one after the other, all of which are kept."""
        return self._states

    def put_all(self, values: Float[np.ndarray, "m ..."]) -> None:
        """Keeps the states of all examples, as `values` gave them."""
        self._states[...] = values.reshape(self._states.shape)
        self._filled[:] = True

    def _own(self, i: int) -> slice:
        return slice(self._offsets[i], self._offsets[i + 1])
