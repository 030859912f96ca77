"""Scores by the distance of two tokens, for any length; see `jaxtune/models/relative.py`."""

import numpy as np
from jaxtyping import Int

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph


def by_distance(g: Graph, name: str, buckets: Int[np.ndarray, " m"]) -> str:
    """The buckets of the distances `t - 1` to `1 - t` of a query from a key.

    Args:
      g: the graph.
      name: for the array of buckets.
      buckets: those of the distances `m - 1` to `1 - m`, of more tokens than there are.
    """
    t, one = layers.length_of(g, "input_ids"), g.constant(1, np.int64)
    middle = g.constant(buckets.shape[0] // 2, np.int64)
    start = g.op("Sub", g.op("Add", middle, one), t)
    stop = g.op("Add", middle, t)
    return g.op("Gather", g.array(name, buckets.astype(np.int64)), g.op("Range", start, stop, one))


def skew(g: Graph, x: str) -> str:
    """[* * t n] -> [* * t t]: what token i has for the distance of token j, n = 2 t - 1."""
    t = g.op("Reshape", layers.length_of(g, "input_ids"), g.integers([1]))
    zero, one = g.integers([0]), g.integers([1])
    flat = g.op("Pad", x, g.integers([0, 0, 0, 0, 0, 0, 0, 1]))
    flat = g.op("Reshape", flat, g.integers([0, 0, -1]))
    start = g.op("Sub", t, one)
    width = g.op("Add", t, start)  # 2 t - 1
    stop = g.op("Add", start, g.op("Mul", t, width))
    flat = g.op("Slice", flat, start, stop, g.integers([2]))
    rows = g.op("Reshape", flat, g.op("Concat", g.integers([0, 0]), t, width, axis=0))
    return g.op("Slice", rows, zero, t, g.integers([3]))
