"""What a model reads of a batch: positions of tokens, images, and a smallest batch of each kind."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch


def example_text() -> Batch:
    """One token of a text."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: jnp.zeros((1, 1), jnp.int32) for name in names}


def example_image(size: int, channels: int) -> Batch:
    """One square image."""
    return {"pixel_values": jnp.zeros((1, size, size, channels))}


def positions_of(batch: Batch) -> Int[Array, "b t"]:
    """The batch's `position_ids`; counted from 0 in each row where it has none."""
    positions = batch.get("position_ids")
    if positions is None:
        shape = batch["input_ids"].shape
        positions = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    return positions


def positions_in_image(count: int, batch: Batch) -> Int[Array, "b t"]:
    """The positions of the `count` tokens that each image is cut into."""
    return jnp.broadcast_to(jnp.arange(count), (batch["pixel_values"].shape[0], count))


def images_of(batch: Batch, channels: int) -> Float[Array, "b h w c"]:
    """The batch's `pixel_values`.

    Raises:
      UserError: images of another shape than [b h w channels].
    """
    images = batch["pixel_values"]
    if images.ndim != 4 or images.shape[3] != channels:
        raise UserError(
            f"pixel_values has shape {images.shape}, expected [batch, height, width, {channels}]."
        )
    return images
