"""Rows of a table, with a gradient that is made of the rows that were read.

Derived by JAX, the gradient of a lookup is a table of zeros that rows are added to: on a device
where memory traffic counts, the table is written, read and written, and read by all that takes it.
Here the rows of one word are added into one of as many rows as were read; the gradient of the table
is a lookup among these, which compilers put into the kernels that read it.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@jax.custom_vjp
def table_rows(table: Float[Array, "v d"], ids: Int[Array, "*n"]) -> Float[Array, "*n d"]:
    """`table[ids]`.

    Args:
      table: one row for each word.
      ids: from 0 to v - 1.
    """
    return jnp.take(table, ids, axis=0)


def are_few(table: Float[Array, "v d"], ids: Int[Array, "*n"]) -> bool:
    """Whether so few rows are read that their gradient is better kept apart from the table."""
    return 0 < 2 * math.prod(ids.shape) <= table.shape[0]


def _forward(table: Array, ids: Array) -> tuple[Array, tuple[Array, Array]]:
    return table_rows(table, ids), (table, ids)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, None]:
    table, ids = saved
    words, g = ids.reshape(-1), g.reshape(-1, g.shape[-1])
    count = words.shape[0]
    # The first place of each word, where its rows are added; count of a word that was not read.
    firsts = jnp.full(table.shape[0], count, jnp.int32).at[words].min(jnp.arange(count))
    sums = jnp.zeros_like(g).at[firsts[words]].add(g)
    found = jnp.take(sums, jnp.minimum(firsts, count - 1), axis=0)
    return jnp.where(firsts[:, None] < count, found, 0).astype(table.dtype), None


table_rows.defvjp(_forward, _backward)
