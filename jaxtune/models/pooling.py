"""One vector of each text: heads of a text encoder that pool, and no more or one linear layer."""

from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.types import Batch
from jaxtune.models.family import Family, Head
from jaxtune.models.heads import mean_tokens, output_layer
from jaxtune.models.layers import NoiseIds

EMBEDDING = "embedding"
"""The name of the head among those of a family."""

POOLED = "pooled"
"""The name of the head that has one linear layer behind the vector."""

POOLING_HEADS = (EMBEDDING, POOLED)
"""Heads on a bare encoder, which no file of transformers has."""

CLASSIFIER = "classifier"
"""The name of that layer."""

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

    @property
    def reads(self) -> str | None:
        """The one token of each text that is read; None where all are."""
        return None if self.how == "mean" else self.how


class EmbeddingHead(nn.Module):
    """Pools the states of each text.

    Attributes:
      pooling: how.
    """

    pooling: Pooling

    @property
    def reads(self) -> str | None:
        """See `Model.top`."""
        return self.pooling.reads

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b ... d"]:
        """Embeddings, float32: of the mean [b d], or of packed rows [b s d]; else as x."""
        del backbone, noise_ids
        return pooled(x, batch, self.pooling)


class PooledClassifier(nn.Module):
    """One linear layer on the vector of each text, which no gradient reaches: it is fitted.

    Attributes:
      pooling: how the vector comes about.
      num_outputs: c.
    """

    pooling: Pooling
    num_outputs: int
    dtype: Any

    @property
    def reads(self) -> str | None:
        """See `Model.top`."""
        return self.pooling.reads

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b ... c"]:
        """Logits, float32; of texts in groups the vectors that these are compared by, [b ... d]."""
        del backbone, noise_ids
        x = pooled(x, batch, self.pooling)
        if "group_ids" in batch:
            return x
        return output_layer(self.num_outputs, nn.initializers.zeros, self.dtype, CLASSIFIER)(x)


def pooled(x: Float[Array, "b t d"], batch: Batch, pooling: Pooling) -> Float[Array, "b ... d"]:
    """The last half of pooling, in float32 at least: the mean where that is wanted, and the norm.

    Args:
      x: states of all tokens, or of the one of each text that `pooling` reads.
      batch: says which tokens are of which text.
      pooling: how.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if pooling.how == "mean":
        x = mean_tokens(x, batch)
    return unit_length(x) if pooling.normalize else x


def unit_length(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """`x / |x|` in float32 at least; 0 stays 0, with a gradient of 0."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def with_pooling(family: Family, pooling: Pooling) -> Family:
    """The family with heads that pool so. One without a head for texts stays as it is."""
    if "sequence" not in family.heads:
        return family
    classifier = family.heads["sequence"].architecture
    bare = classifier.removesuffix("ForSequenceClassification") + "Model"
    heads = {
        EMBEDDING: Head(bare, lambda config, size, dtype: EmbeddingHead(pooling), ()),
        POOLED: Head(
            bare,
            lambda config, size, dtype: PooledClassifier(pooling, size, dtype),
            (CLASSIFIER,),
            fitted=(CLASSIFIER,),
        ),
    }
    return family._replace(heads={**family.heads, **heads})
