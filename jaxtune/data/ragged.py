"""Parts of different sizes, one after the other in one array."""

import numpy as np
from jaxtyping import Int, Int64


def offsets_of(sizes: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n+1"]:
    """Where each part begins, and where the last one ends.

    Args:
      sizes: of n parts.
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def starts_of(sizes: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Where each part begins."""
    return offsets_of(sizes)[:-1]


def places_of(
    starts: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"]
) -> Int64[np.ndarray, " m"]:
    """The places of all that some parts hold, part after part.

    Args:
      starts: where n parts begin, in any order.
      sizes: of these, m in all.
    """
    return np.repeat(starts - starts_of(sizes), sizes) + np.arange(int(sizes.sum()))
