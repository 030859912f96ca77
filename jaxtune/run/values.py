"""What a checkpoint's values must be: a checksum of each leaf, and whether all numbers are finite.

Both are computed where the leaf lies, and are the same however devices share it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt32

from jaxtune.core import paths


def checksums(tree: Any) -> dict[str, int]:
    """A checksum of the bits of each leaf, by name; no single wrong bit leaves it as it was.

    Of the words w_i of a leaf, sum_i (2i + 1) w_i mod 2^32: 2^k (2i + 1) is never 0 there.
    """
    found = {name: _checksum(leaf) for name, leaf in paths.flatten(tree).items()}
    return {name: int(value) for name, value in jax.device_get(found).items()}


def all_finite(tree: Any) -> bool:
    """Whether no leaf has NaN or an infinity."""
    return all(jax.device_get([_is_finite(leaf) for leaf in jax.tree.leaves(tree)]))


@jax.jit
def _checksum(leaf: Array) -> UInt32[Array, ""]:
    bits = leaf.dtype.itemsize * 8
    kind = jnp.dtype(f"uint{min(bits, 32)}")
    words = leaf if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, kind)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = jnp.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    return jnp.sum((2 * place + 1) * words.astype(jnp.uint32), dtype=jnp.uint32)


@jax.jit
def _is_finite(leaf: Array) -> Bool[Array, ""]:
    return jnp.isfinite(leaf).all() if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.array(True)
