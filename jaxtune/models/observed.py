"""A model that gives the hidden states of some layers beside its outputs."""

from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from jaxtune.core.types import ApplyFn
from jaxtune.models.registry import make_apply
from jaxtune.models.trunk import STATES


class Observed(NamedTuple):
    """What a model gives whose layers are looked at.

    Attributes:
      outputs: as without.
      states: of all tokens, one for each layer that is looked at.
    """

    outputs: Array
    states: tuple[Float[Array, "b t d"], ...]


def make_observed_apply(module: nn.Module, depth: int, observed: tuple[int, ...]) -> ApplyFn:
    """The model as `apply_fn` that gives `Observed`.

    Args:
      module: a `Model`.
      depth: of the trunk that its batches bring the outputs of; 0 for none.
      observed: hidden states in increasing order, from `depth`: i is the output of layer i - 1, and
        0 what goes into the first.
    """

    def arguments(batch: Any) -> tuple[Any, ...]:
        return (batch[STATES] if depth else None, batch, depth, observed)

    inner = make_apply(module, "observe", arguments)

    def apply_fn(params: Any, batch: Any, *, key: Any, train: bool) -> Observed:
        return Observed(*inner(params, batch, key=key, train=train))

    return apply_fn
