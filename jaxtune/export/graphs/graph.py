"""A graph as it grows: operations in the order of computing, and the arrays that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

Params = Mapping[str, Float32[np.ndarray, "..."]]
"""Parameters by leaf name, such as `bert/pooler/dense/kernel`."""


class Node(NamedTuple):
    """One operation.

    Attributes:
      kind: as ONNX calls it.
      inputs: names of tensors.
      outputs: likewise.
      attributes: by name.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Precision(NamedTuple):
    """What weights are kept in, and how they are multiplied.

    Attributes:
      product: (graph, x, name of a kernel, its values [i o]) -> `x W`.
      rows: (graph, ids, name of a table, its values [v d]) -> the rows of the ids.
      words: (graph, x, name of a table, its values [v d]) -> `x E^T`.
      kernel: (graph, name, values [o i h w]) -> the kernel of a convolution.
    """

    product: Callable[[Graph, str, str, np.ndarray], str]
    rows: Callable[[Graph, str, str, np.ndarray], str]
    words: Callable[[Graph, str, str, np.ndarray], str]
    kernel: Callable[[Graph, str, np.ndarray], str]


class Graph:
    """Grows by `op`; a tensor is known by its name.

    Attributes:
      params: of the model.
      precision: of its products.
      nodes: so far.
      arrays: what they read of constants and parameters.
    """

    def __init__(self, params: Params, precision: Precision) -> None:
        """An empty graph."""
        self.params, self.precision = params, precision
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._constants: dict[Any, str] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The one output of an operation."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """The outputs of an operation that has several."""
        outputs = tuple(f"{kind}_{len(self.nodes)}_{i}" for i in range(count))
        self.nodes.append(Node(kind, inputs, outputs, attributes))
        return list(outputs)

    def rename(self, x: str, name: str) -> None:
        """Gives a tensor the name of an output."""
        self.nodes.append(Node("Identity", (x,), (name,), {}))

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        """An array of a few numbers, each kept once."""
        found = np.asarray(values, kind)
        key = found.dtype.str, found.shape, found.tobytes()
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = self.array(name, found)
        return self._constants[key]

    def integers(self, values: Sequence[int]) -> str:
        """An int64 array: axes, shapes, places."""
        return self.constant(values, np.int64)

    def array(self, name: str, values: Shaped[np.ndarray, ...]) -> str:
        """An array under a name of its own; the same name has the same values."""
        if name not in self.arrays:
            self.arrays[name] = np.ascontiguousarray(values).reshape(np.shape(values))
        return name

    def weight(self, name: str) -> str:
        """A parameter as it is."""
        return self.array(name, self.params[name])
