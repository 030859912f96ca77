"""Parameter names and layouts of Flax and of torch: one mechanical rename, both ways.

A Flax leaf `bert/encoder/layer/0/output/dense/kernel` is the torch tensor
`bert.encoder.layer.0.output.dense.weight`, transposed. `scale` and `embedding` are `weight` as
they stand; every other last word is kept.
"""

import numpy as np

_TORCH_LEAF = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_OLD_TORCH_LEAF = {"weight": "gamma", "bias": "beta"}


def torch_name(leaf: str) -> str:
    """The torch name of a Flax leaf name."""
    *parents, last = leaf.split("/")
    return ".".join([*parents, _TORCH_LEAF.get(last, last)])


def old_torch_name(leaf: str) -> str | None:
    """The name that checkpoints of 2018 (such as bert-base-uncased) give a LayerNorm leaf."""
    *parents, last = torch_name(leaf).split(".")
    if not parents or parents[-1] != "LayerNorm":
        return None
    return ".".join([*parents, _OLD_TORCH_LEAF[last]])


def is_transposed(leaf: str) -> bool:
    """Whether torch stores this leaf with its axes reversed."""
    return leaf.endswith("/kernel")


def to_torch(leaf: str, value: np.ndarray) -> np.ndarray:
    """A Flax value in torch's layout, contiguous: kernels [in, out] become [out, in]."""
    return np.ascontiguousarray(value.T if is_transposed(leaf) else value)


def from_torch(leaf: str, value: np.ndarray) -> np.ndarray:
    """A torch value in Flax's layout."""
    return value.T if is_transposed(leaf) else value


def torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that torch stores for a Flax leaf of this shape."""
    return shape[::-1] if is_transposed(leaf) else shape
