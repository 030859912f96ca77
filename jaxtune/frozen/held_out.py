"""What frozen layers give for held-out rows, computed once for several evaluations."""

import itertools
from collections.abc import Callable
from typing import Any

import jax

from jaxtune.core.types import Batch, Params
from jaxtune.models.trunk import STATES, make_trunk, make_upper_apply
from jaxtune.training.compiled import Compiled


class HeldStates:
    """Keeps the states of each batch of an evaluation, whose batches are always the same.

    Attributes:
      upper: the model on the states, as `apply_fn` of a batch that `of` has completed.
    """

    def __init__(self, module: Any, depth: int, max_bytes: int) -> None:
        """Nothing is computed yet.

        Args:
          module: the model, as `make_trunk` takes it.
          depth: so many layers are frozen, in all runs that share this.
          max_bytes: the states of further batches are computed each time.
        """
        self.upper = make_upper_apply(module, depth)
        self._trunk = Compiled(make_trunk(module, depth))
        self._states: dict[str, list[Any]] = {}
        self._left = max_bytes

    def of(self, split: str, params: Params) -> Callable[[Batch], Batch]:
        """Of one evaluation: batch -> the batch with its states, for all batches in their order.

        Args:
          split: of the rows.
          params: of which those of the frozen layers are read.
        """
        kept, places = self._states.setdefault(split, []), itertools.count()

        def complete(batch: Batch) -> Batch:
            place = next(places)
            if place < len(kept):
                return batch | {STATES: jax.device_put(kept[place])}
            states = self._trunk(params, batch)
            if place == len(kept) and states.nbytes <= self._left:
                self._left -= states.nbytes
                kept.append(jax.device_get(states))
            return batch | {STATES: states}

        return complete
