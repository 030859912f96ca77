"""Dropout masks: a hash of each element's index, cheap enough to be drawn twice.

Dropout needs many bits of modest quality. Threefry, JAX's generator, spends about as long on the
masks of a BERT layer on a CPU as on its LayerNorms, its softmax and its residuals together; a
hash that compilers fuse into the multiplication costs next to nothing. Keys are still JAX's own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from jaxtune.types import PRNGKey


def keep_mask(key: PRNGKey, rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """True with probability `1 - rate`, to within 2^-32, independently for each element.

    The same key and shape give the same mask on every device and under every sharding.

    Args:
      key: of this mask alone.
      rate: from 0 to 1.
      shape: of the mask.
    """
    words = jax.random.key_data(key).reshape(-1)
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    bits = _mix(_mix(index + words[0]) + words[-1])
    return bits >= np.uint32(min(round(rate * 2**32), 2**32 - 1))


def dropout(x: Float[Array, "..."], rate: float, key: PRNGKey) -> Float[Array, "..."]:
    """`x / (1 - rate)` where it is kept, else 0.

    Source: Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting, in its inverted form.
    """
    if rate == 1:
        return jnp.zeros_like(x)
    kept = keep_mask(key, rate, x.shape)
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A permutation of 32 bits in which each input bit changes each output bit half of the time.

    Source: Wellons 2018, Prospecting for Hash Functions, "lowbias32".
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
