"""What stands on a backbone, where several families have the same; see `Model.top`."""

from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, segment_mask
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.layers import Dense, Dropout, Init, NoiseIds, dense, layer_norm


class HeadConfig(Protocol):
    """What the heads here read of a family's config."""

    @property
    def initializer_range(self) -> float:
        """The standard deviation of new weights."""
        ...

    @property
    def head_dropout(self) -> float:
        """The rate before the last layer of a classifier."""
        ...


class LinearHead(nn.Module):
    """One linear layer on every token, or on those that it reads.

    Attributes:
      layer: its name in the files.
      reads: `first` or `last` token of each example; None for all.
    """

    num_outputs: int
    kernel_init: Init
    dtype: Any
    dropout_rate: float = 0.0
    layer: str = "classifier"
    use_bias: bool = True
    reads: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b n c"]:
        """Logits of each token."""
        x = Dropout(self.dropout_rate)(x, noise_ids)
        features, init = self.num_outputs, self.kernel_init
        return output_layer(features, init, self.dtype, self.layer, self.use_bias)(x, noise_ids)


def token_head(config: HeadConfig, num_outputs: int, dtype: Any) -> LinearHead:
    """A class of each token."""
    return LinearHead(num_outputs, config.initializer_range, dtype, config.head_dropout)


def span_head(config: HeadConfig, num_outputs: int, dtype: Any) -> LinearHead:
    """Two numbers of each token: whether a span starts there, and whether it ends there."""
    del num_outputs
    return LinearHead(2, config.initializer_range, dtype, layer="qa_outputs")


class Transform(nn.Module):
    """`LayerNorm(act(x W + b))`, what stands before the vocabulary in a masked language model.

    Attributes:
      dense_name: of the matrix.
      norm_name: of the LayerNorm.
      use_bias: whether the matrix has one.
      norm_bias: whether the LayerNorm has one.
      features: that it gives; None for as many as it takes.
    """

    activation: str
    layer_norm_eps: float
    kernel_init: Init
    dtype: Any
    dense_name: str = "dense"
    norm_name: str = "LayerNorm"
    use_bias: bool = True
    norm_bias: bool = True
    features: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "... d"], noise_ids: NoiseIds) -> Float[Array, "... e"]:
        """[... d] -> [... e]."""
        features = self.features or x.shape[-1]
        inner = dense(features, self.kernel_init, self.dtype, self.dense_name, self.use_bias)
        x = ACTIVATIONS[self.activation](inner(x, noise_ids))
        return layer_norm(self.layer_norm_eps, self.dtype, self.norm_name, self.norm_bias)(x)


def output_layer(
    features: int, init: Init, dtype: Any, name: str = "classifier", use_bias: bool = True
) -> Dense:
    """The last layer of a head, whose products are float32 at least."""
    return dense(features, init, jnp.promote_types(dtype, jnp.float32), name, use_bias)


def mean_tokens(x: Float[Array, "b t d"], batch: Batch) -> Float[Array, "b d"]:
    """The mean over the tokens of each example: [b d], or of packed rows [b n d]."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if "segment_ids" in batch:
        mask = segment_mask(batch).astype(x.dtype)  # [b n t]
        return mask @ x / jnp.maximum(mask.sum(-1, keepdims=True), 1)
    mask = batch["attention_mask"][..., None].astype(x.dtype)  # [b t 1]
    return (x * mask).sum(1) / jnp.maximum(mask.sum(1), 1)
