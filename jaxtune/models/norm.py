"""LayerNorm in bfloat16, with its gradient written out.

Derived from mean and variance one after the other, the gradient is more operations, some of whose
results would go through memory in float32. This one needs the features alone.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class NarrowLayerNorm(nn.Module):
    """`(x - mean) / sqrt(variance + eps) scale + bias` over the last axis, computed in float32.

    Attributes:
      epsilon: eps.
      use_bias: whether there is a bias.
    """

    epsilon: float
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """[... d] -> [... d] in bfloat16."""
        y: Any = standardised(x, self.epsilon)
        y = y * self.param("scale", nn.initializers.ones, x.shape[-1:])
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return y.astype(jnp.bfloat16)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def standardised(x: Float[Array, "... d"], eps: float) -> Float[Array, "... d"]:
    """`(x - mean) / sqrt(variance + eps)` over the last axis, in float32; variance in two passes.

    Args:
      x: features of any float dtype.
      eps: added to the variance.

    Source: Ba et al. 2016, Layer Normalization, equation 4.
    """
    return _standardised(x, eps)[0]


def _standardised(x: Array, eps: float) -> tuple[Array, Array]:
    """What it says, and one over the deviation, [... 1]."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + eps)
    return centred * scale, scale


def _forward(x: Array, eps: float) -> tuple[Array, Array]:
    return standardised(x, eps), x


def _backward(eps: float, x: Array, g: Array) -> tuple[Array]:
    y, scale = _standardised(x, eps)
    along = jnp.mean(g * y, axis=-1, keepdims=True)
    return ((scale * (g - g.mean(axis=-1, keepdims=True) - y * along)).astype(x.dtype),)


standardised.defvjp(_forward, _backward)
