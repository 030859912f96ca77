"""Matrices that a GPU rounds by a few kernels for all of them, not by one for each."""

import jax
import jax.numpy as jnp

from jaxtune.core import paths
from jaxtune.core.types import Array, Batch, Params, PRNGKey
from jaxtune.training.step import Sums, SumsFn


def reading_together(sums: SumsFn) -> SumsFn:
    """The sums, of matrices that are all multiplied by a one that is read from memory.

    XLA puts kernels into one that read the same array. The copies in bfloat16 that products take of
    float32 matrices read none in common, so they are given one. No number changes by it.

    Args:
      sums: as `make_sums` makes them.
    """

    def together(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        # Of a vector, since numbers do not count among arrays.
        one = jax.lax.optimization_barrier(jnp.ones(2))[0]

        def read(name: str, x: Array) -> Array:
            is_matrix = x.ndim == 2 and x.dtype == jnp.float32 and name.endswith("kernel")
            return x * one if is_matrix else x

        params, frozen = (paths.map_named(read, tree) for tree in (params, frozen))
        return sums(params, frozen, batch, key)

    return together
