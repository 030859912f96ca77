"""Some of the tokens of each row, where no more are wanted: a head may read one of each example."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from jaxtune.core.types import Batch
from jaxtune.models.layers import NoiseIds

Places = Int[Array, "b n"] | None
"""Of the tokens of each row that are wanted; None for all of them, n = t."""


def places_of(batch: Batch, reads: str, rows: int) -> Int[Array, "b n"]:
    """The place of the `first` or `last` token of each example in its row.

    Args:
      batch: packed rows have `first_tokens` and `last_tokens` [b n]; other rows hold one example,
        n = 1, whose last token is the last that is no padding, on whichever side padding is.
      reads: `first` or `last`.
      rows: b.
    """
    if "segment_ids" in batch:
        return batch[f"{reads}_tokens"]
    if reads == "first":
        return jnp.zeros((rows, 1), jnp.int32)
    mask = batch["attention_mask"]
    places = jnp.arange(mask.shape[1])
    return jnp.max(jnp.where(mask > 0, places, 0), axis=-1, keepdims=True)  # [b t] -> [b 1]


def pick(x: Shaped[Array, "b t ..."], places: Places) -> Shaped[Array, "b n ..."]:
    """The tokens at some places of each row; all of them for None."""
    if places is None:
        return x
    return jnp.take_along_axis(x, places.reshape(*places.shape, *(1,) * (x.ndim - 2)), axis=1)


def pick_noise_ids(noise_ids: NoiseIds, places: Places) -> NoiseIds:
    """As `pick`; None where there are none."""
    return None if noise_ids is None else pick(noise_ids, places)
