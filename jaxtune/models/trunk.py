"""A model cut in two: its trunk, the frozen layers below all that is trained, and the rest.

The trunk runs as in inference, so its outputs for an example are always the same.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxtune.core.types import ApplyFn, Batch, Params
from jaxtune.models.registry import make_apply

STATES = "trunk_states"
"""The field of a batch that holds the outputs of the trunk."""

Trunk = Callable[[Params, Batch], Float[Array, "b t d"]]
"""(parameters, of which only the trunk's are read; batch) -> its outputs."""


def num_layers(module: nn.Module) -> int:
    """Layers of a `Model`."""
    return module.bind({}).backbone.num_layers  # pyright: ignore[reportAttributeAccessIssue]


def reads_all(module: Any, depth: int) -> bool:
    """Whether what stands on a trunk of `depth` layers reads all of its tokens.

    Where it does not, the trunk gives the tokens that the head reads, one for each example.
    """
    return depth < num_layers(module) or getattr(module.top, "reads", None) is None


def make_trunk(module: nn.Module, depth: int) -> Trunk:
    """The embeddings and the first `depth` layers of a `Model`, without dropout."""

    def trunk(params: Params, batch: Batch) -> Float[Array, "b t d"]:
        outputs: Any = module.apply({"params": params}, batch, depth, method="trunk")
        return outputs

    return trunk


def make_upper_apply(module: nn.Module, depth: int) -> ApplyFn:
    """What stands on the trunk, as `apply_fn` of a batch with the field STATES."""
    return make_apply(module, "suffix", lambda batch: (batch[STATES], batch, depth))
