"""Weights in int8, and products of integers, in which no row depends on another.

Of a matrix each output has its scale, `max |W| / 127`. What it is multiplied with is rounded to 8
bits too, each token by itself: `x = r q`, `r = max |x| / 127`. The products are of whole numbers,
so that they are exact, and a token gives the same whatever stands beside it in the batch.

Tables of embeddings have a scale for each row, and kernels of convolutions, which ONNX has in
float32 as quick, are int8 in the file alone.
"""

import numpy as np

from jaxtune.export.graphs.graph import Graph, Precision

_UINT8, _FLOAT = 2, 1  # of TensorProto's types


def _product(g: Graph, x: str, name: str, kernel: np.ndarray) -> str:
    """`x W`."""
    values, scales = _rounded(kernel, axis=0)
    return _multiply(g, x, g.array(name, values), g.array(f"{name}/scale", scales[0]))


def _rows(g: Graph, ids: str, name: str, table: np.ndarray) -> str:
    """Rows of a table."""
    values, scales = _of_table(g, name, table)
    found = g.op("Cast", g.op("Gather", values, ids), to=_FLOAT)
    scale = g.op("Unsqueeze", g.op("Gather", scales, ids), g.integers([-1]))
    return g.op("Mul", found, scale)


def _words(g: Graph, x: str, name: str, table: np.ndarray) -> str:
    """`x E^T`, of the table that `_rows` reads."""
    values, scales = _of_table(g, name, table)
    return _multiply(g, x, g.op("Transpose", values, perm=(1, 0)), scales)


def _kernel(g: Graph, name: str, kernel: np.ndarray) -> str:
    """In float32 when the file has been read."""
    values, scales = _rounded(kernel, axis=(1, 2, 3))
    wide = g.op("Cast", g.array(name, values), to=_FLOAT)
    return g.op("Mul", wide, g.array(f"{name}/scale", scales))


def _multiply(g: Graph, x: str, values: str, scales: str) -> str:
    """`x W` of a float32 x and a matrix of int8 with the scales of its columns."""
    most = g.op("ReduceMax", g.op("Abs", x), g.integers([-1]), keepdims=1)  # [b t 1]
    row = g.op("Mul", most, g.constant(1 / 127))  # where it is 0, so is all that it multiplies
    # 1 to 255, of which 128 is 0; a cast cuts off, so that adding a half rounds
    whole = g.op("Cast", g.op("Add", g.op("Div", x, row), g.constant(128.5)), to=_UINT8)
    sums = g.op("MatMulInteger", whole, values, g.constant(128, np.uint8))
    return g.op("Mul", g.op("Mul", g.op("Cast", sums, to=_FLOAT), row), scales)


def _of_table(g: Graph, name: str, table: np.ndarray) -> tuple[str, str]:
    values, scales = _rounded(table, axis=1)
    return g.array(name, values), g.array(f"{name}/scale", scales[:, 0])


def _rounded(weights: np.ndarray, axis: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """int8, and the scales along the other axes."""
    scales = np.abs(weights).max(axis, keepdims=True) / 127
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(weights / scales).astype(np.int8), scales


INT8 = Precision(_product, _rows, _words, _kernel)
