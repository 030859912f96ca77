"""A head of a person's own in the place of a family's: any module from features to outputs."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch, Params
from jaxtune.models import convert
from jaxtune.models.family import Family, Head
from jaxtune.models.heads import mean_tokens
from jaxtune.models.layers import NoiseIds
from jaxtune.models.noise_ids import noise_ids_of_examples
from jaxtune.models.registry import find_head

OWN_HEAD = "own_head"
"""The name of its parameters, and what an export names in the place of a class of transformers."""

READS = ("first", "last", "mean")
"""What of the tokens of an example a head may read."""

MakeHead = Callable[[int], nn.Module]
"""(number of outputs) -> a module `(x [... d]) -> outputs [... c]`.

Where its `__call__` has a parameter `noise_ids`, it gets those of x, [...], or None where nothing
is random; `jaxtune.models.layers.Dropout` takes them.
"""


class OwnHead(nn.Module):
    """Feeds a module with what stands for an example, or with every token.

    Attributes:
      own_head: the module.
      num_outputs: c.
      pools: `mean` over the tokens of each example, or over the places of an image; None otherwise.
      reads: of `Model.top`.
    """

    own_head: nn.Module
    num_outputs: int
    pools: str | None
    reads: str | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ... d"], batch: Batch, backbone: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b ... c"]:
        """What the module gives, float32; it is asked for that of each feature vector alone."""
        del backbone
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.pools is not None:
            rows, images = x.shape[0], "pixel_values" in batch
            x = x.reshape(rows, -1, x.shape[-1]).mean(1) if images else mean_tokens(x, batch)
            if noise_ids is not None:
                noise_ids = noise_ids_of_examples(batch, rows).reshape(x.shape[:-1])
        module: Any = self.own_head
        draws = "noise_ids" in inspect.signature(type(module).__call__).parameters
        outputs = module(x, noise_ids=noise_ids) if draws else module(x)
        expected = (*x.shape[:-1], self.num_outputs)
        if jnp.shape(outputs) != expected or not jnp.issubdtype(outputs.dtype, jnp.floating):
            found = f"{getattr(outputs, 'dtype', type(outputs).__name__)}{list(jnp.shape(outputs))}"
            raise UserError(
                f"config.model.head gives {found} for features {list(x.shape)}: expected"
                f" float32{list(expected)}, {self.num_outputs} outputs of each."
            )
        return outputs.astype(jnp.float32)


def check_names(shapes: Params) -> None:
    """Refuses parameters of which a file would have two under one name.

    Raises:
      UserError: such as `kernel` and `scale` of one module, both `weight` in a file.
    """
    known: dict[str, str] = {}
    for leaf in paths.leaf_names(shapes):
        name = convert.torch_name(leaf)
        if name in known:
            raise UserError(
                f"config.model.head has the parameters {known[name]!r} and {leaf!r}, which are both"
                f" {name!r} in a file: expected another name of one of them."
            )
        known[name] = leaf


def with_own_head(family: Family, name: str, make: MakeHead) -> Family:
    """The family with a head of a person's own for one kind of task.

    Args:
      family: whose own head says what of the tokens is read, unless the module has an attribute
        `reads`, one of READS.
      name: `sequence`, `token` or `image`.
      make: of the module.

    Raises:
      UserError: the family has no head for that; when the model is made, a module that reads or
        gives something else.
    """
    theirs = find_head(family, name)

    def make_top(config: Any, num_outputs: int, dtype: Any) -> OwnHead:
        module = make(num_outputs)
        if name == "token":
            return OwnHead(module, num_outputs, None, None)
        usual = getattr(theirs.make_top(config, num_outputs, dtype), "reads", None) or "mean"
        reads, known = getattr(module, "reads", usual), READS
        if name == "image":  # a picture has no last token, and that of a ResNet no first one
            known = tuple(dict.fromkeys((usual, "mean")))
        if reads not in known:
            raise UserError(
                f"config.model.head has reads {reads!r}: expected one of {', '.join(known)}."
            )
        pools, reads = ("mean", None) if reads == "mean" else (None, reads)
        return OwnHead(module, num_outputs, pools, reads)

    head = Head(OWN_HEAD, make_top, (OWN_HEAD,))
    return family._replace(heads={**family.heads, name: head})
