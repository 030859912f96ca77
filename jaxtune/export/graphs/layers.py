"""The parts that the graphs of several families are made of; x is a tensor [b t d]."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxtune.export.graphs.graph import Graph

LOWEST = float(np.finfo(np.float32).min)
"""Added to the score of what is not seen; finite, so that a row that sees nothing has no NaN."""


class Heads(NamedTuple):
    """Heads of attention: how many, and their features."""

    number: int
    width: int


def dense(g: Graph, x: str, *modules: str) -> str:
    """`x W + b`; of several modules, their outputs side by side."""
    kernels = [g.params[f"{module}/kernel"] for module in modules]
    name = "+".join(modules)
    y = g.precision.product(g, x, f"{name}/kernel", np.concatenate(kernels, axis=1))
    if f"{modules[0]}/bias" not in g.params:
        return y
    biases = [g.params[f"{module}/bias"] for module in modules]
    return g.op("Add", y, g.array(f"{name}/bias", np.concatenate(biases)))


def last_dense(g: Graph, x: str, module: str) -> str:
    """`x W + b` that gives the outputs: float32 whatever other products are in."""
    y = g.op("MatMul", x, g.weight(f"{module}/kernel"))
    bias = f"{module}/bias"
    return g.op("Add", y, g.weight(bias)) if bias in g.params else y


def word_logits(g: Graph, x: str, table: str, bias: str | None) -> str:
    """`x E^T + b` with the word embeddings for E."""
    y = g.precision.words(g, x, table, g.params[table])
    return y if bias is None else g.op("Add", y, g.weight(bias))


def rows(g: Graph, ids: str, module: str) -> str:
    """Rows of an embedding table."""
    name = f"{module}/embedding"
    return g.precision.rows(g, ids, name, g.params[name])


def layer_norm(g: Graph, x: str, module: str, eps: float) -> str:
    """LayerNorm over the last axis, with a bias or without."""
    bias = [g.weight(f"{module}/bias")] if f"{module}/bias" in g.params else []
    weights = (g.weight(f"{module}/scale"), *bias)
    return g.op("LayerNormalization", x, *weights, axis=-1, epsilon=float(eps))


def activate(g: Graph, x: str, name: str) -> str:
    """An activation by the name that `hidden_act` gives it."""
    if name == "gelu":
        return g.op("Gelu", x)
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return g.op("Gelu", x, approximate="tanh")
    if name == "silu":
        return g.op("Mul", x, g.op("Sigmoid", x))
    return g.op({"relu": "Relu", "tanh": "Tanh"}[name], x)


def length_of(g: Graph, ids: str) -> str:
    """t, of ids [b t]."""
    return g.op("Squeeze", g.op("Shape", ids, start=1, end=2), g.integers([0]))


def positions(g: Graph, ids: str) -> str:
    """0 to t - 1."""
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    return g.op("Range", zero, length_of(g, ids), one)


def shown(g: Graph, mask: str) -> str:
    """Whether each token is seen, [b 1 1 t]."""
    is_real = g.op("Greater", mask, g.constant(0, np.int64))
    return g.op("Unsqueeze", is_real, g.integers([1, 2]))


def distances(g: Graph, ids: str) -> str:
    """How far ahead of each query each key is, [t t]."""
    places = positions(g, ids)
    axes = g.integers([0]), g.integers([1])
    keys, queries = (g.op("Unsqueeze", places, axis) for axis in axes)
    return g.op("Sub", keys, queries)


def bias_of(g: Graph, allowed: str) -> str:
    """0 where a key is seen, very low elsewhere."""
    return g.op("Where", allowed, g.constant(0.0), g.constant(LOWEST))


def attention(g: Graph, parts: tuple[str, str, str], heads: Heads, bias: str | None) -> str:
    """`softmax(q k^T / sqrt(width) + bias) v` of each head, [b q d].

    Args:
      g: the graph.
      parts: queries [b q d], keys and values [b t d].
      heads: that d is cut into.
      bias: of the scores; None where all is seen.
    """
    query, key, value = parts
    query = g.op("Mul", query, g.constant(heads.width**-0.5))
    query, value = (g.op("Transpose", cut(g, x, heads), perm=(0, 2, 1, 3)) for x in (query, value))
    key = g.op("Transpose", cut(g, key, heads), perm=(0, 2, 3, 1))  # [b h k t]
    scores = g.op("MatMul", query, key)
    scores = scores if bias is None else g.op("Add", scores, bias)
    attended = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    attended = g.op("Transpose", attended, perm=(0, 2, 1, 3))
    return joined(g, attended, heads)


def projected(g: Graph, x: str, asking: str, modules: Sequence[str]) -> tuple[str, str, str]:
    """Queries of those that ask, keys and values of all, by a matrix each."""
    if asking == x:
        query, key, value = split(g, dense(g, x, *modules), 3)
        return query, key, value
    key, value = split(g, dense(g, x, *modules[1:]), 2)
    return dense(g, asking, modules[0]), key, value


def cut(g: Graph, x: str, heads: Heads) -> str:
    """[b t d] -> [b t h k]."""
    return g.op("Reshape", x, g.integers([0, 0, *heads]))


def joined(g: Graph, x: str, heads: Heads) -> str:
    """[b t h k] -> [b t d]."""
    return g.op("Reshape", x, g.integers([0, 0, heads.number * heads.width]))


def split(g: Graph, x: str, count: int) -> list[str]:
    """Parts of the last axis, of one size."""
    return g.ops("Split", count, x, axis=-1, num_outputs=count)


def first_two(g: Graph, x: str) -> str:
    """What the last layer is asked for where the head reads the first token, [b 2 d].

    A product with one row has kernels of its own, which sum over keys in an order that depends on
    how many there are, padding counted. Two rows are summed as many are.
    """
    return g.op("Slice", x, *(g.integers([i]) for i in (0, 2, 1)))


def first_token(g: Graph, x: str) -> str:
    """[b t d] -> [b 1 d]."""
    return g.op("Slice", x, *(g.integers([i]) for i in (0, 1, 1)))


def last_token(g: Graph, x: str, mask: str) -> str:
    """Of each row the last token that is no padding, [b t d] -> [b 1 d]; the first of none."""
    is_real = g.op("Greater", mask, g.constant(0, np.int64))
    places = g.op("Where", is_real, positions(g, mask), g.constant(0, np.int64))  # [b t]
    last = g.op("ReduceMax", places, g.integers([1]), keepdims=1)  # [b 1]
    index = g.op("Unsqueeze", last, g.integers([2]))  # [b 1 1], one number for each token wanted
    return g.op("GatherND", x, index, batch_dims=1)


def alone(g: Graph, x: str) -> str:
    """[b 1 c] -> [b c]."""
    return g.op("Squeeze", x, g.integers([1]))


def transform(g: Graph, x: str, names: tuple[str, str], activation: str, eps: float) -> str:
    """`LayerNorm(act(x W + b))`, of a matrix and a LayerNorm."""
    inner = activate(g, dense(g, x, names[0]), activation)
    return layer_norm(g, inner, names[1], eps)
