"""Attention of tokens that see no further than a window: blocks and what stands next to them.

Source: Beltagy et al. 2020, Longformer: The Long-Document Transformer, section 3.1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxtune.core.dropout import Drop
from jaxtune.models.products import dense_attention
from jaxtune.models.sight import BLIND, HIDDEN, Sight


def banded_attention(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    sight: Sight,
    dtype: Any,
    drop: Drop | None,
    size: int,
) -> Float[Array, "b t h k"]:
    """`dense_attention` of blocks of queries to what may be near them.

    Scores are computed again in the backward pass.

    Args:
      query: t of them a row.
      key: of the same tokens, behind those that all see.
      value: likewise.
      sight: with a window, and positions that are those in the row.
      dtype: that the operands of products are rounded to.
      drop: of the probabilities; None for none.
      size: queries of a block, no fewer than the window.
    """
    b, t = query.shape[:2]
    reach, free = sight.window or 0, sight.free

    @jax.checkpoint
    def attend(query: Array, key: Array, value: Array, sight: Sight, drop: Drop | None) -> Array:
        near = dataclasses.replace(
            sight,
            asking=_blocks(sight.asking, size, BLIND),
            asked=_around(sight.asked, size, reach, free, HIDDEN),
            asking_positions=_blocks(sight.asking_positions, size),
            positions=_around(sight.positions, size, reach, free),
        )
        key, value = (_around(x, size, reach, free) for x in (key, value))
        if drop is not None:
            ids = _blocks(drop.asking, size), _around(drop.noise_ids, size, reach, free)
            drop = dataclasses.replace(drop, asking=ids[0], noise_ids=ids[1])
        return dense_attention(_blocks(query, size), key, value, near.bias(), dtype, drop)

    found = attend(query, key, value, sight, drop)  # [(b n) size h k]
    return found.reshape(b, -1, *found.shape[2:])[:, :t]


def _blocks(x: Any, size: int, filler: int = 0) -> Shaped[Array, "n size ..."]:
    """[b t ...] -> [(b n) size ...]."""
    x = _filled(x, 0, -x.shape[1] % size, filler)
    return x.reshape(-1, size, *x.shape[2:])


def _around(x: Any, size: int, reach: int, free: int, filler: int = 0) -> Shaped[Array, "n s ..."]:
    """What each block may see, [(b n) f+w+size+w ...]: what all see, and its surroundings."""
    shared, x = x[:, :free], x[:, free:]
    b, t, *rest = x.shape
    x = _filled(x, size, size + -t % size, filler).reshape(b, -1, size, *rest)
    n = x.shape[1] - 2
    shared = jnp.broadcast_to(shared[:, None], (b, n, free, *rest))
    parts = [shared, x[:, :-2, size - reach :], x[:, 1:-1], x[:, 2:, :reach]]
    return jnp.concatenate(parts, axis=2).reshape(b * n, -1, *rest)


def _filled(x: Array, before: int, after: int, filler: int) -> Array:
    widths = ((0, 0), (before, after), *((0, 0),) * (x.ndim - 2))
    return jnp.pad(x, widths, constant_values=filler)
