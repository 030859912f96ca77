"""What a checkpoint's values must be: a checksum of each leaf, and whether all numbers are finite.

Both are computed where the leaf lies, by as few devices as have all of it, and are the same however
devices share it.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, UInt32

from jaxtune.core import paths


def checksums(tree: Any) -> dict[str, int]:
    """A checksum of the bits of each leaf, by name; no single wrong bit leaves it as it was.

    Of the words w_i of a leaf, sum_i (2i + 1) w_i mod 2^32: 2^k (2i + 1) is never 0 there.
    """
    # One at a time: programs that devices start in different orders would wait for each other.
    return {name: int(_checksum(_once(leaf))) for name, leaf in paths.flatten(tree).items()}


def all_finite(tree: Any) -> bool:
    """Whether no leaf has NaN or an infinity."""
    return all(bool(_is_finite(_once(leaf))) for leaf in jax.tree.leaves(tree))


def _once(leaf: Array) -> Array:
    """Of a leaf that all devices have whole one copy."""
    return leaf.addressable_data(0) if leaf.is_fully_replicated else leaf


def _checksum(leaf: Array) -> UInt32[Array, ""]:
    """Of a leaf in parts, each device adds the terms of its own."""
    if leaf.is_fully_replicated or not isinstance(leaf.sharding, NamedSharding):
        return _terms(leaf)
    return _shared_terms(leaf, leaf.sharding.mesh, leaf.sharding.spec)


@partial(jax.jit, static_argnums=(1, 2))
def _shared_terms(leaf: Array, mesh: Mesh, spec: PartitionSpec) -> UInt32[Array, ""]:
    axes = [axis if axis is None or isinstance(axis, tuple) else (axis,) for axis in spec]
    used = tuple(axis for some in axes if some for axis in some)

    def own(part: Array) -> Array:
        cuts = zip(axes, part.shape, strict=False)
        starts = [0 if some is None else jax.lax.axis_index(some) * n for some, n in cuts]
        return jax.lax.psum(_terms(part, leaf.shape, starts), used)

    return jax.shard_map(own, mesh=mesh, in_specs=spec, out_specs=PartitionSpec(), check_vma=False)(
        leaf
    )


@partial(jax.jit, static_argnums=1)
def _terms(
    part: Array, shape: tuple[int, ...] | None = None, starts: Any = ()
) -> UInt32[Array, ""]:
    """The sum over a part of a leaf of some shape, by where the part begins."""
    bits = part.dtype.itemsize * 8
    kind = jnp.dtype(f"uint{min(bits, 32)}")
    words = part if part.dtype == bool else jax.lax.bitcast_convert_type(part, kind)
    whole = (*(part.shape if shape is None else shape), *words.shape[part.ndim :])
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        if axis < len(starts):
            index += jnp.uint32(starts[axis])
        place += index * jnp.uint32(math.prod(whole[axis + 1 :]) % 2**32)
    return jnp.sum((2 * place + 1) * words.astype(jnp.uint32), dtype=jnp.uint32)


@jax.jit
def _is_finite(leaf: Array) -> Bool[Array, ""]:
    return jnp.isfinite(leaf).all() if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.array(True)
