"""Batch normalisation whose running statistics are leaves of the parameter tree.

A step asks for new statistics with `module.apply(..., mutable=["statistics"])`; it gets a tree with
the paths of the parameters' `mean` and `var`, and nothing else.

Source: Ioffe and Szegedy 2015, Batch Normalization, algorithms 1 and 2.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxtune.core.types import Batch
from jaxtune.parallel.collectives import over_devices


class BatchNorm(nn.Module):
    """`(x - mean) / sqrt(var + eps) * scale + bias` of each channel, in float32 at least.

    Attributes:
      use_batch_statistics: whether training takes mean and variance of the batch; otherwise it
        takes the running ones, as inference does.
      dtype: of the output.
      momentum: the share of the batch in the new running statistics.
    """

    use_batch_statistics: bool
    dtype: Any
    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], real: Bool[Array, " b"], train: bool
    ) -> Float[Array, "b h w c"]:
        """Normalises each channel.

        Args:
          x: what is normalised.
          real: rows whose values count; the others only fill the shape.
          train: whether this is training.
        """
        shape, zeros, ones = x.shape[-1:], nn.initializers.zeros, nn.initializers.ones
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean, var = self.param("mean", zeros, shape), self.param("var", ones, shape)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train and self.use_batch_statistics:
            mean, var = self._of_batch(x, real, mean, var)
        factor = scale / jnp.sqrt(var.astype(x.dtype) + self.epsilon)  # [c]
        return ((x - mean) * factor + bias).astype(self.dtype)

    def _of_batch(
        self,
        x: Float[Array, "b h w c"],
        real: Bool[Array, " b"],
        running_mean: Float[Array, " c"],
        running_var: Float[Array, " c"],
    ) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Mean and biased variance of all real rows; stores the new running statistics."""
        counted = real[:, None, None, None]  # [b 1 1 1]
        count = over_devices(jnp.sum(real, dtype=x.dtype)) * x.shape[1] * x.shape[2]
        divisor = jnp.maximum(count, 1)
        mean = over_devices(jnp.sum(jnp.where(counted, x, 0), axis=(0, 1, 2))) / divisor
        squares = over_devices(jnp.sum(jnp.where(counted, x - mean, 0) ** 2, axis=(0, 1, 2)))
        self._store("mean", running_mean, mean, count)
        self._store("var", running_var, squares / jnp.maximum(count - 1, 1), count)
        return mean, squares / divisor

    def _store(
        self, name: str, old: Float[Array, " c"], new: Float[Array, " c"], count: Float[Array, ""]
    ) -> None:
        """Moves a running statistic towards the batch's; one value has no unbiased variance."""
        moved = jnp.where(count > 1, (1 - self.momentum) * old + self.momentum * new, old)
        self.sow("statistics", name, moved, init_fn=lambda: old, reduce_fn=lambda _, last: last)


def real_rows(batch: Batch) -> Bool[Array, " b"]:
    """Rows whose `weight` is above 0; all where the batch has no weights."""
    weight = batch.get("weight")
    if weight is None:
        return jnp.ones(batch["pixel_values"].shape[0], bool)
    return weight > 0
