"""Ids of tokens and of examples, by which dropout knows them wherever they lie.

See `jaxtune.core.dropout`. A batch without `example_ids` counts its examples by their places.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from jaxtune.core import dropout
from jaxtune.core.types import Batch

_WHOLE = -1  # stands for the position where an example itself is meant


def noise_ids_of_tokens(batch: Batch, positions: Int[Array, "b t"]) -> UInt32[Array, "b t"]:
    """The id of each token.

    Args:
      batch: with `example_ids`, [b], or [b s] of packed rows, and their `segment_ids` [b t].
      positions: of the tokens in their examples.
    """
    ids = _example_ids(batch, positions.shape[0])
    if "segment_ids" in batch:  # padding has the first example's ids: nothing reads it
        slots = jnp.maximum(batch["segment_ids"] - 1, 0)
        ids = jnp.take_along_axis(ids, slots, axis=1)  # [b s] -> [b t]
    return dropout.noise_ids_of(ids, positions)


def noise_ids_of_examples(batch: Batch, rows: int) -> UInt32[Array, "b n"]:
    """The id of each example, for what is computed of one of its tokens or of all of them.

    Args:
      batch: as for `noise_ids_of_tokens`; n is 1, or s of packed rows.
      rows: b.
    """
    return dropout.noise_ids_of(_example_ids(batch, rows), _WHOLE)


def _example_ids(batch: Batch, rows: int) -> Int[Array, "b n"]:
    slots = batch["first_tokens"].shape[1] if "segment_ids" in batch else 1
    counted = jnp.arange(rows * slots)
    return batch.get("example_ids", counted).reshape(rows, slots)
