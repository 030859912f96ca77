"""What a GPU does by a few kernels for all leaves, not by one or two for each.

XLA puts kernels into one that read the same array, and does not count numbers among arrays.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxtune.core import paths
from jaxtune.core.types import Batch, Params, PRNGKey
from jaxtune.training.step import Sums, SumsFn


def reading_together(sums: SumsFn) -> SumsFn:
    """The sums, of matrices that are all multiplied by a one that is read from memory.

    The copies in bfloat16 that products take of float32 matrices read nothing in common, so they
    are given something. No number changes by it.

    Args:
      sums: as `make_sums` makes them.
    """

    def together(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        one = jax.lax.optimization_barrier(jnp.ones(2))[0]

        def read(name: str, x: Array) -> Array:
            is_matrix = x.ndim == 2 and x.dtype == jnp.float32 and name.endswith("kernel")
            return x * one if is_matrix else x

        params, frozen = (paths.map_named(read, tree) for tree in (params, frozen))
        return sums(params, frozen, batch, key)

    return together


def norm_of_all(tree: Params) -> Float[Array, ""]:
    """The global norm of a tree: sums of rows by leaf, and one sum of all of these.

    A sum of each leaf would be two kernels for it, of which the second adds a few hundred numbers.
    """
    squares = [jnp.square(x.astype(jnp.float32)) for x in jax.tree.leaves(tree)]
    rows = [x.sum(axis=-1).reshape(-1) if x.ndim > 1 else x.reshape(-1) for x in squares]
    # Else XLA makes the sum of what is put together one of a sum of each after all.
    return jnp.sqrt(jax.lax.optimization_barrier(jnp.concatenate(rows)).sum())


def clip_by_norm_of_all(max_norm: float) -> optax.GradientTransformation:
    """As `optax.clip_by_global_norm`, by `norm_of_all`."""

    def clip(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        # As an array: all updates read it, so that small ones share kernels.
        norm = jax.lax.optimization_barrier(jnp.full(2, norm_of_all(updates)))[0]

        def scaled(x: Array) -> Array:
            return jnp.where(norm < max_norm, x, x / norm.astype(x.dtype) * max_norm)

        return jax.tree.map(scaled, updates), state

    def init(params: Any) -> Any:
        del params
        return optax.EmptyState()

    return optax.GradientTransformation(init, clip)
