"""Parameter names and layouts of Flax and of torch: one mechanical rename, both ways.

A Flax leaf `bert/encoder/layer/0/output/dense/kernel` is the torch tensor
`bert.encoder.layer.0.output.dense.weight`, transposed. `scale` and `embedding` are `weight` as
they stand; the statistics `mean` and `var` are `running_mean` and `running_var`; every other last
word is kept. Kernels are [in, out] here, and [height, width, in, out] for images, where torch has
[out, in] and [out, in, height, width]. GPT-2's `Conv1D` is the exception: it has [in, out] in torch
files, and [out, in] in the files of the Flax models that were converted from those.
"""

import re
from typing import Literal

import numpy as np

FileLayout = Literal["torch", "flax"]
"""Who wrote a file."""

_TORCH_LEAF = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_OLD_TORCH_LEAF = {"weight": "gamma", "bias": "beta"}
_CONV1D = re.compile(r"(?:^|/)c_(?:attn|fc|proj)/kernel$")


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


def is_conv1d(leaf: str) -> bool:
    """Whether a leaf is the kernel of a `Conv1D` of GPT-2."""
    return _CONV1D.search(leaf) is not None


def to_file(leaf: str, value: np.ndarray, layout: FileLayout = "torch") -> np.ndarray:
    """A leaf as a file of that layout has it, contiguous."""
    return np.ascontiguousarray(value.transpose(_axes(leaf, value.ndim, layout)))


def from_file(leaf: str, value: np.ndarray, layout: FileLayout = "torch") -> np.ndarray:
    """A tensor of a file of that layout as the leaf that it is."""
    return value.transpose(np.argsort(_axes(leaf, value.ndim, layout)))


def file_shape(leaf: str, shape: tuple[int, ...], layout: FileLayout = "torch") -> tuple[int, ...]:
    """The shape that a file of that layout has for a leaf of this shape."""
    return tuple(shape[axis] for axis in _axes(leaf, len(shape), layout))


def _axes(leaf: str, ndim: int, layout: FileLayout) -> tuple[int, ...]:
    """The order in which a file has the axes of a leaf."""
    is_kernel = leaf.rpartition("/")[2] == "kernel"
    if is_kernel and ndim == 2 and (layout == "torch") != is_conv1d(leaf):
        return (1, 0)
    if is_kernel and ndim == 4 and layout == "torch":
        return (3, 2, 0, 1)  # [h w i o] -> [o i h w]
    return tuple(range(ndim))
