"""Learned positions of a grid, for a grid of another size."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

Taps = Callable[[int, int], Float64[np.ndarray, "new old"]]
"""(cells of an axis, new cells of it) -> what each of the new ones takes of the old ones."""


def resample(
    grid: Float[Array, "y x d"], shape: tuple[int, int], taps: Taps
) -> Float[Array, "h w d"]:
    """Bicubic resampling of a grid whose edges stay where they are.

    Args:
      grid: values at the middle of each cell.
      shape: h and w; the grid's own gives it as it is.
      taps: `cubic` or `smooth_cubic`.

    Source: Keys 1981, Cubic Convolution Interpolation for Digital Image Processing, equation 14.
    """
    if shape == grid.shape[:2]:
        return grid
    tall, wide = (
        jnp.asarray(taps(old, new), grid.dtype)
        for old, new in zip(grid.shape[:2], shape, strict=True)
    )
    return jnp.einsum("hy,wx,yxd->hwd", tall, wide, grid, precision="highest")


def cubic(old: int, new: int) -> Float64[np.ndarray, "new old"]:
    """Four cells each, with a = -0.75; the last stands for what is beyond it.

    What torch's `interpolate` does.
    """
    places = (np.arange(new) + 0.5) * old / new - 0.5
    below = np.floor(places).astype(int)
    found = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        cells = np.clip(below + tap, 0, old - 1)
        np.add.at(found, (np.arange(new), cells), _weight(np.abs(places - below - tap), -0.75))
    return found


def smooth_cubic(old: int, new: int) -> Float64[np.ndarray, "new old"]:
    """With a = -0.5, over as many more cells as the new ones are fewer; none stands for others.

    What torch's `interpolate` does with antialiasing.
    """
    scale = max(old / new, 1.0)
    places = (np.arange(new) + 0.5) * old / new
    distances = np.abs(np.arange(old) + 0.5 - places[:, None]) / scale  # [new old]
    found = np.where(distances < 2, _weight(distances, -0.5), 0.0)
    return found / found.sum(axis=1, keepdims=True)


def _weight(distance: Float64[np.ndarray, "..."], a: float) -> Float64[np.ndarray, "..."]:
    """Keys's cubic up to 2 cells away."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)
