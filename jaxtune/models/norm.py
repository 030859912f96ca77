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


def _standardised(x: Array, eps: float) -> tuple[Array, Array]:
    """`(x - mean) / sqrt(variance + eps)`, and one over the deviation, [... 1]; in float32."""
    centred = x.astype(jnp.float32)
    centred = centred - centred.mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + eps)
    return centred * inverse, inverse


def _forward(x: Array, scale: Array, bias: Array | None, eps: float) -> tuple[Array, Any]:
    y = _standardised(x, eps)[0] * scale
    y = y if bias is None else y + bias
    return y.astype(jnp.bfloat16), (x, scale, bias)


def _backward(eps: float, saved: Any, g: Array) -> tuple[Array, Array, Array | None]:
    x, scale, bias = saved
    g = g.reshape(-1, g.shape[-1]).astype(jnp.float32)
    y, inverse = _standardised(x.reshape(g.shape), eps)
    to_y = g * scale
    along = jnp.mean(to_y * y, axis=-1, keepdims=True)
    to_x = inverse * (to_y - to_y.mean(axis=-1, keepdims=True) - y * along)
    to_scale, to_bias = _sums_of_two(g * y, g)
    to_bias = None if bias is None else to_bias.astype(bias.dtype)
    return to_x.astype(x.dtype).reshape(x.shape), to_scale.astype(scale.dtype), to_bias


def _sums_of_two(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> tuple[Array, Array]:
    """Over the rows, by one reduction: of two, a GPU's compiler keeps what is summed in memory."""
    zero = jnp.zeros((), jnp.float32)

    def add(x: tuple[Array, ...], y: tuple[Array, ...]) -> tuple[Array, ...]:
        return x[0] + y[0], x[1] + y[1]

    sums: Any = jax.lax.reduce((a, b), (zero, zero), add, (0,))
    return sums


normalised.defvjp(_forward, _backward)
