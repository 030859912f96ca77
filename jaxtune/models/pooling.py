"""One vector of each text: the head of a text encoder without parameters of its own."""

from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.types import Batch
from jaxtune.models.family import Family, Head
from jaxtune.models.heads import mean_tokens
from jaxtune.models.layers import NoiseIds

EMBEDDING = "embedding"
"""The name of the head among those of a family."""

How = Literal["mean", "first", "last"]
HOWS: tuple[How, ...] = get_args(How)


class Pooling(NamedTuple):
    """How the states of a text's tokens become one vector.

    Attributes:
      how: the `mean` over all tokens, special ones included, or the state of the `first` or `last`.
      normalize: whether the vector is divided by its norm.
    """

    how: How = "mean"
    normalize: bool = False


class EmbeddingHead(nn.Module):
    """Pools the states of each text.

    Attributes:
      pooling: how.
    """

    pooling: Pooling

    @property
    def reads(self) -> str | None:
        """The one token of each text that is read; None where all are. See `Model.top`."""
        return None if self.pooling.how == "mean" else self.pooling.how

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b ... d"]:
        """Embeddings, float32: of the mean [b d], or of packed rows [b s d]; else as x."""
        del backbone, noise_ids
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return pooled(x, batch, self.pooling)


def pooled(x: Float[Array, "b t d"], batch: Batch, pooling: Pooling) -> Float[Array, "b ... d"]:
    """The last half of pooling: the mean where that is wanted, and the norm.

    Args:
      x: states of all tokens, or of the one of each text that `pooling` reads.
      batch: says which tokens are of which text.
      pooling: how.
    """
    if pooling.how == "mean":
        x = mean_tokens(x, batch)
    return unit_length(x) if pooling.normalize else x


def unit_length(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """`x / |x|` in float32 at least; 0 stays 0, with a gradient of 0."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def with_pooling(family: Family, pooling: Pooling) -> Family:
    """The family with a head that pools so. One without a head for texts stays as it is."""
    if "sequence" not in family.heads:
        return family
    classifier = family.heads["sequence"].architecture
    bare = classifier.removesuffix("ForSequenceClassification") + "Model"
    head = Head(bare, lambda config, size, dtype: EmbeddingHead(pooling), ())
    return family._replace(heads={**family.heads, EMBEDDING: head})
