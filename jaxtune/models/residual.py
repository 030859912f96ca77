"""What may stand between a branch and the residual that it is added to."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core import dropout
from jaxtune.models.layers import NoiseIds


class LayerScale(nn.Module):
    """A factor for each feature.

    Attributes:
      value: that it begins with.

    Source: Touvron et al. 2021, Going deeper with Image Transformers, section 2.
    """

    value: float

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """[... d] -> [... d]."""
        factor = self.param("lambda1", nn.initializers.constant(self.value), x.shape[-1:])
        return x * factor.astype(x.dtype)


class DropPath(nn.Module):
    """Leaves out a branch for an example as a whole, in training; others grow by 1 / (1 - rate).

    Attributes:
      rate: the chance, from 0 to below 1.

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b ... d"], noise_ids: NoiseIds) -> Float[Array, "b ... d"]:
        """[b ... d] -> [b ... d].

        Args:
          x: one example a row.
          noise_ids: of its tokens, [b t], whose first stands for the example; None drops nothing.
        """
        if noise_ids is None or not self.rate:
            return x
        rows = noise_ids[:, :1].reshape(-1, *[1] * (x.ndim - 1))  # [b 1 ... 1]
        key, whole = self.make_rng("dropout"), jnp.zeros((), jnp.uint32)
        return dropout.dropout(x, self.rate, key, rows, whole)
