"""The batches of a stage, with what its trunk gives where it has one.

The trunk, the frozen layers below all that the stage trains, computes the same for an example in
each epoch. So it runs once, in the first epoch that a stage sees an example, and what it gives is
kept. Its outputs are a field of the batch: the step itself computes what stands on the trunk.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtune.activation_cache import ActivationCache
from jaxtune.compiled import Compiled
from jaxtune.data.batches import BatchIndex
from jaxtune.models.trunk import STATES, make_trunk, reads_all
from jaxtune.report import human_bytes
from jaxtune.run import Run, batch_indices
from jaxtune.types import Params

Fields = dict[str, Any]


class Feed:
    """Makes the batches of one stage.

    Attributes:
      trunk: the compiled trunk; None where no layer is below all that is trained.
      cache: of what it gives; None where nothing is kept.
    """

    trunk: Compiled | None = None
    cache: ActivationCache | None = None
    _reads_all = True

    def __init__(self, run: Run, stage: int, frozen: Params, folder: Path | None = None) -> None:
        """Nothing is computed yet.

        Args:
          run: has the examples and their layout.
          stage: its number.
          frozen: what the stage does not train.
          folder: for a cache that is too large for memory; None for the system's.
        """
        self._run, self._frozen = run, frozen
        plan = self._plan = run.trunks[stage]
        if not plan.depth:
            return
        module, examples, size = run.pretrained.module, run.examples["train"], run.layout.batch_size
        trunk = make_trunk(module, plan.depth)
        self.trunk = Compiled(trunk)
        self._reads_all = reads_all(module, plan.depth)
        empty = examples.collate(run.layout.empty(), size, (run.settings.seed, 0))
        shape = jax.eval_shape(trunk, frozen, empty).shape
        self._length = None if "input_ids" in empty else shape[1]
        if plan.keeps:
            settings = run.settings.activation_cache
            sizes = examples.lengths if self._length is None else examples.lengths * shape[1]
            self.cache = ActivationCache(
                sizes if self._reads_all else np.ones(len(sizes), np.int64),
                shape[2:],
                jax.numpy.dtype(settings.dtype),
                settings.max_memory_bytes,
                folder,
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
        dtype = self._run.settings.activation_cache.dtype
        size = human_bytes(self.cache.num_bytes)
        return f"{what}, once for each example; {size} kept {where} ({dtype})"

    def batches(self, step: int = 0, start: int = 0) -> Iterator[tuple[BatchIndex, Fields]]:
        """The batches from `step` on, a function of the seed and the step alone.

        Args:
          step: number of steps taken.
          start: the step at which the stage began. What is kept of an example comes from the first
            batch since then that has it, also in a run that goes on from a later step: in another
            batch its last bits might differ.
        """
        first = self._first_batches(start) if self.cache is not None and step > start else {}
        for index, epoch in batch_indices(self._run, step):
            for number in sorted({first[i][0] for i in index.indices.tolist() if i in first}):
                self._catch_up(first, number)
            yield index, self.batch(index, epoch)

    def batch(self, index: BatchIndex, epoch: int) -> Fields:
        """One batch; the trunk runs where the states of an example are not kept yet.

        Args:
          index: which examples, and where.
          epoch: which changes to the examples follow from, besides the seed.
        """
        examples, size = self._run.examples["train"], self._run.layout.batch_size
        held = self.cache is not None and self.cache.holds(index.indices)
        full: Fields = {}
        if not held or self._reads_all:
            full = examples.collate(index, size, (self._run.settings.seed, epoch))
        if self.trunk is None:
            return full
        states = None
        if not held:
            states = jax.device_get(self.trunk(self._frozen, full))
            if self.cache is not None:
                self.cache.put(index, states)
        if self._reads_all:
            if self.cache is not None:
                length = index.length if self._length is None else self._length
                states = self.cache.take(index, len(full["weight"]), length)
            return full | {STATES: states}
        if self.cache is not None:
            states = self.cache.take_single(index.indices, size)
        else:
            states = _single(index, states, size)
        return examples.collate_labels(index.indices, size) | {STATES: states}

    def _first_batches(self, start: int) -> dict[int, tuple[int, BatchIndex, int]]:
        """By example, the first batch from `start` on that has it: number, index and epoch."""
        found: dict[int, tuple[int, BatchIndex, int]] = {}
        count = len(self._run.examples["train"].lengths)
        for number, (index, epoch) in enumerate(batch_indices(self._run, start)):
            for i in index.indices.tolist():
                found.setdefault(i, (number, index, epoch))
            if len(found) == count:
                break
        return found

    def _catch_up(self, first: dict[int, tuple[int, BatchIndex, int]], number: int) -> None:
        """Keeps what the batch of that number gave, and forgets that it is to be computed."""
        members = [i for i, (n, *_) in first.items() if n == number]
        _, index, epoch = first[members[0]]
        assert self.trunk is not None
        assert self.cache is not None
        size, draw = self._run.layout.batch_size, (self._run.settings.seed, epoch)
        full = self._run.examples["train"].collate(index, size, draw)
        self.cache.put(index, jax.device_get(self.trunk(self._frozen, full)), members)
        for i in members:
            del first[i]


def _single(index: BatchIndex, states: Any, size: int) -> np.ndarray:
    """The one state of each example, [r s ...], in a row of its own: [size 1 ...]."""
    found = np.zeros((size, 1, *states.shape[2:]), states.dtype)
    rows = index.rows or tuple((place,) for place in range(len(index.indices)))
    for row, places in enumerate(rows):
        for slot, place in enumerate(places):
            found[place, 0] = states[row, slot]
    return found
