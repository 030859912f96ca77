"""Weights in float32."""

import numpy as np

from jaxtune.export.graphs.graph import Graph, Precision


def _product(g: Graph, x: str, name: str, kernel: np.ndarray) -> str:
    return g.op("MatMul", x, g.array(name, kernel))


def _rows(g: Graph, ids: str, name: str, table: np.ndarray) -> str:
    return g.op("Gather", g.array(name, table), ids)


def _words(g: Graph, x: str, name: str, table: np.ndarray) -> str:
    return g.op("MatMul", x, g.op("Transpose", g.array(name, table), perm=(1, 0)))


FLOAT32 = Precision(_product, _rows, _words, lambda g, name, kernel: g.array(name, kernel))
