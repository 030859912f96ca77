"""Rotary positions: queries and keys turned by angles that grow with their place in the text.

Source: Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding, section 3.4.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each token, for half of a head's features."""

    cos: Float[Array, "b t 1 half"]
    sin: Float[Array, "b t 1 half"]


def rotation(positions: Int[Array, "b t"], width: int, theta: float) -> Rotation:
    """The angles `position * theta^(-2 i / width)` for i from 0 to `width / 2`.

    Args:
      positions: of the tokens.
      width: features of a head, even.
      theta: the base; a larger one turns more slowly.
    """
    frequencies = theta ** (-np.arange(0, width, 2) / width)
    # float64 until here: an error in a frequency is multiplied by the position
    angles = positions[..., None, None] * jnp.asarray(frequencies)  # [b t 1 half]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: Float[Array, "b t h k"], by: Rotation) -> Float[Array, "b t h k"]:
    """Turns each pair (x_i, x_(i + k/2)) by its angle, in float32 at least."""
    first, second = jnp.split(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 2, axis=-1)
    turned = [first * by.cos - second * by.sin, second * by.cos + first * by.sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
