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
        features = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features) if self.use_bias else None
        return normalised(x, scale, bias, self.epsilon)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalised(
    x: Float[Array, "... d"], scale: Float[Array, " d"], bias: Float[Array, " d"] | None, eps: float
) -> Float[Array, "... d"]:
    """`(x - mean) / sqrt(variance + eps) scale + bias` over the last axis, in bfloat16.

    Computed in float32, the variance in two passes. What waits for the gradient is x as it came.

    Args:
      x: features of any float dtype.
      scale: of each feature.
      bias: likewise; None for 0.
      eps: added to the variance.

    Source: Ba et al. 2016, Layer Normalization, equation 4.
    """
    return _forward(x, scale, bias, eps)[0]


def _statistics(x: Array, eps: float) -> tuple[Array, Array]:
    """The mean, and one over the deviation, [... 1]; in float32."""
    x = x.astype(jnp.float32)
    mean = x.mean(axis=-1, keepdims=True)
    return mean, jax.lax.rsqrt(jnp.mean((x - mean) ** 2, axis=-1, keepdims=True) + eps)


def _standardised(x: Array, mean: Array, inverse: Array) -> Array:
    return (x.astype(jnp.float32) - mean) * inverse


def _forward(x: Array, scale: Array, bias: Array | None, eps: float) -> tuple[Array, Any]:
    y = _standardised(x, *_statistics(x, eps)) * scale
    y = y if bias is None else y + bias
    return y.astype(jnp.bfloat16), (x, scale, bias)


def _backward(eps: float, saved: Any, g: Array) -> tuple[Array, Array, Array | None]:
    x, scale, bias = saved
    shape, d = x.shape, x.shape[-1]
    x, g = x.reshape(-1, d), g.reshape(-1, d)
    mean, inverse = _statistics(x, eps)
    # Sums over tokens apart from those over features: of what both read, a GPU's compiler keeps
    # float32 in memory.
    others = jax.lax.optimization_barrier((x, mean, inverse))
    to_out = jax.lax.optimization_barrier(g).astype(jnp.float32)
    to_scale = (to_out * _standardised(*others)).sum(axis=0).astype(scale.dtype)
    to_bias = None if bias is None else to_out.sum(axis=0).astype(bias.dtype)
    y, to_y = _standardised(x, mean, inverse), g.astype(jnp.float32) * scale
    along = jnp.mean(to_y * y, axis=-1, keepdims=True)
    to_x = inverse * (to_y - to_y.mean(axis=-1, keepdims=True) - y * along)
    return to_x.astype(x.dtype).reshape(shape), to_scale, to_bias


normalised.defvjp(_forward, _backward)
