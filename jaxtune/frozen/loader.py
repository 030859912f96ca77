"""The batches of a stage, with what its trunk gives where it has one.

The trunk, the frozen layers below all that the stage trains, computes the same for an example in
each epoch. So it runs once, in the first epoch that a stage sees an example, and what it gives is
kept. Its outputs are a field of the batch: the step itself computes what stands on the trunk.
"""

import itertools
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtune.core.types import Batch, Params
from jaxtune.core.units import human_bytes
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.stream import Stream
from jaxtune.frozen.plan import TrunkPlan
from jaxtune.frozen.store import ActivationCache
from jaxtune.models.trunk import STATES, make_trunk, reads_all
from jaxtune.parallel import multihost
from jaxtune.parallel.sharding import Sharding, own_rows, place_batch
from jaxtune.settings import ActivationCacheSettings
from jaxtune.training.compiled import Compiled
from jaxtune.training.prefetch import prefetch
from jaxtune.training.sharded_step import shard_trunk

Fields = dict[str, Any]


class Loader:
    """Makes the batches of one stage.

    Attributes:
      trunk: the compiled trunk; None where no layer is below all that is trained.
      cache: of what it gives; None where nothing is kept.
    """

    trunk: Compiled | None = None
    cache: ActivationCache | None = None
    _reads_all = True
    _on_host = False  # whether the host reads what the trunk gives

    def __init__(
        self,
        stream: Stream,
        plan: TrunkPlan,
        module: Any,
        frozen: Params,
        settings: ActivationCacheSettings,
        sharding: Sharding | None = None,
        folder: Path | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
          stream: the examples and their order.
          plan: what the stage does with its frozen layers.
          module: the model, as `make_trunk` takes it.
          frozen: what the stage does not train.
          settings: how the outputs of the trunk are kept.
          sharding: on several devices; None on one.
          folder: for a cache that is too large for memory; None for the system's.
        """
        self._stream, self._plan, self._frozen = stream, plan, frozen
        self._sharding, self._dtype = sharding, settings.dtype
        if not plan.depth:
            return
        examples = stream.examples
        trunk = make_trunk(module, plan.depth)
        self._reads_all = reads_all(module, plan.depth)
        self._on_host = plan.keeps or not self._reads_all
        self.trunk = self._compiled(trunk)
        empty = stream.empty()
        shape = jax.eval_shape(trunk, frozen, empty).shape
        self._length = None if "input_ids" in empty else shape[1]
        if plan.keeps:
            sizes = examples.lengths if self._length is None else examples.lengths * shape[1]
            self.cache = plan.kept or ActivationCache(
                sizes if self._reads_all else np.ones(len(sizes), np.int64),
                shape[2:],
                jax.numpy.dtype(settings.dtype),
                settings.max_memory_bytes,
                folder,
                multihost.share(len(sizes)),
            )

    def describe(self) -> str:
        """What becomes of the frozen layers below all that is trained; empty without any."""
        plan = self._plan
        if not plan.depth:
            return plan.reason and f"activations are not kept: {plan.reason}"
        what = f"frozen: the lower {plan.depth} layers run without dropout"
        if self.cache is None:
            return f"{what}; their outputs are not kept: {plan.reason}"
        where = "in memory" if self.cache.in_memory else "in a file"
        size = human_bytes(self.cache.num_bytes)
        return f"{what}, once for each example; {size} kept {where} ({self._dtype})"

    def batches(self, step: int = 0, start: int = 0) -> Iterator[tuple[BatchIndex, Fields]]:
        """The batches from `step` on, a function of the seed and the step alone.

        Args:
          step: number of steps taken.
          start: the step at which the stage began. What is kept of an example comes from the first
            batch since then that has it, also in a run that goes on from a later step: in another
            batch its last bits might differ.
        """
        first = self._first_batches(start, step) if self.cache is not None else {}
        for index, epoch in self._stream.indices(step):
            for number in sorted({first[i][0] for i in index.indices.tolist() if i in first}):
                self._catch_up(first, number)
            yield index, self.batch(index, epoch)

    def on_devices(self, step: int = 0, start: int = 0) -> Generator[tuple[BatchIndex, Batch]]:
        """The same on the devices, made ahead in the background; to be closed after use.

        A trunk that several devices share runs where it is asked for: programs of which two threads
        start some could wait for each other.
        """
        batches = ((index, self._put(batch)) for index, batch in self.batches(step, start))
        if self._sharding is None or self.trunk is None:
            return prefetch(batches)
        return batches

    def shapes(self, step: int, count: int) -> Iterator[Batch]:
        """The shapes of `count` batches from `step` on, as `Stream.shapes`, on the device.

        None of them where there is a trunk, whose outputs have others, or several devices.
        """
        if self.trunk is None and self._sharding is None:
            yield from map(self._put, self._stream.shapes(step, count))

    def batch(self, index: BatchIndex, epoch: int) -> Fields:
        """One batch; the trunk runs where the states of an example are not kept yet.

        Args:
          index: which examples, and where.
          epoch: which changes to the examples follow from, besides the seed.

        Returns:
          Of several processes, the rows that this one holds; states may be on the devices already.
        """
        cache = self.cache
        held = cache is not None and cache.holds(index.indices)
        full = self._collate(index, epoch) if self._reads_all or not held else {}
        if self.trunk is None:
            return full
        states = None if held else self._states(full)
        if cache is not None and states is not None:
            cache.put(index, states)
        if self._reads_all:
            if cache is not None:
                length = index.length if self._length is None else self._length
                states = self._take(cache, index, length)
            return full | {STATES: states}
        # What a head reads of an example is one state, in a row of its own.
        alone = BatchIndex(index.indices, 1)
        rows = self._own_rows(alone)
        labels = self._stream.examples.collate_labels(index.indices[rows], rows.stop - rows.start)
        if cache is not None:
            return labels | {STATES: self._take(cache, alone, 1)}
        return labels | {
            STATES: _one_a_row(index, states, self._stream.layout.num_rows(alone))[rows]
        }

    def _compiled(self, trunk: Any) -> Compiled:
        """The trunk; where the host reads what it gives, each process gets all of it."""
        sharding = self._sharding
        if sharding is None:
            return Compiled(trunk)
        out = sharding.whole if self._on_host else sharding.rows
        return Compiled(shard_trunk(trunk, sharding), transform=partial(jax.jit, out_shardings=out))

    def _states(self, fields: Fields) -> Any:
        """What the trunk gives for a batch: on the host if that reads it, else on the devices."""
        assert self.trunk is not None
        states = self.trunk(self._frozen, place_batch(self._sharding, fields))
        return jax.device_get(states) if self._on_host else states

    def _take(self, cache: ActivationCache, index: BatchIndex, length: int) -> np.ndarray:
        """The kept states of a batch, from all processes, for the rows that this one holds."""
        states = cache.take(index, self._stream.layout.num_rows(index), length)
        return multihost.total(states)[self._own_rows(index)]

    def _put(self, batch: Fields) -> Batch:
        """The batch as the step takes it."""
        sharding = self._sharding
        placed = place_batch(sharding, batch)
        if sharding is None or sharding.mode == "jit":
            return placed
        shares = sharding.num_shares
        return {name: x.reshape(shares, -1, *x.shape[1:]) for name, x in placed.items()}

    def _own_rows(self, index: BatchIndex) -> slice:
        return own_rows(self._sharding, self._stream.layout.num_rows(index))

    def _collate(self, index: BatchIndex, epoch: int) -> Fields:
        return self._stream.collate(index, epoch, self._own_rows(index))

    def _first_batches(self, start: int, stop: int) -> dict[int, tuple[int, BatchIndex, int]]:
        """By example, the first batch of some steps that has it: number, index and epoch."""
        found: dict[int, tuple[int, BatchIndex, int]] = {}
        count = len(self._stream.examples.lengths)
        batches = itertools.islice(self._stream.indices(start), stop - start)
        for number, (index, epoch) in enumerate(batches):
            for i in index.indices.tolist():
                found.setdefault(i, (number, index, epoch))
            if len(found) == count:
                break
        return found

    def _catch_up(self, first: dict[int, tuple[int, BatchIndex, int]], number: int) -> None:
        """Keeps what the batch of that number gave, and forgets that it is to be computed."""
        members = [i for i, (n, *_) in first.items() if n == number]
        _, index, epoch = first[members[0]]
        assert self.cache is not None
        self.cache.put(index, self._states(self._collate(index, epoch)), members)
        for i in members:
            del first[i]


def _one_a_row(index: BatchIndex, states: Any, size: int) -> np.ndarray:
    """The one state of each example, from [r s ...] or [b 1 ...] to [size 1 ...]."""
    found = np.zeros((size, 1, *states.shape[2:]), states.dtype)
    for _, place, row, slot, *_ in index.spans(np.ones(index.indices.max(initial=0) + 1, np.int64)):
        found[place, 0] = states[row, slot]
    return found
