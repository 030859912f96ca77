"""A model as an ONNX file, from its graph."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxtune import __version__
from jaxtune.core import paths
from jaxtune.core.types import Params
from jaxtune.export.graphs.float32 import FLOAT32
from jaxtune.export.graphs.graph import Graph, Precision
from jaxtune.export.graphs.int8 import INT8
from jaxtune.export.graphs.registry import GRAPHS
from jaxtune.export.signature import Axes, Signature, signature_of
from jaxtune.models.design import Design

PRECISIONS = {"onnx": FLOAT32, "onnx-int8": INT8}
"""What weights are kept in, by the name of the format."""

OPSET = 20
"""The version of ONNX's operations: the first that has Gelu. onnxruntime 1.17 runs it."""

_IR_VERSION = 9  # of files with these operations
_LIMIT = 2_000_000_000  # bytes; protobuf has a limit of 2 GiB
_SMALL = 1024  # bytes of an array that stays in the file in any case


def write_onnx(file: Path, design: Design, params: Params, precision: Precision) -> list[Path]:
    """Writes a model, and checks that it is well formed.

    Args:
      file: made anew; where the weights are more than a file can hold, they are in FILE.data.
      design: of the model.
      params: all its parameters, without any that a strategy has added.
      precision: of the weights.

    Returns:
      The files.
    """
    import onnx

    signature, graph = signature_of(design), make_graph(design, params, precision)
    model = _model(graph, signature, _metadata(design))
    beside = Path(f"{file}.data")
    is_large = sum(values.nbytes for values in graph.arrays.values()) > _LIMIT
    where: dict[str, Any] = {"location": beside.name, "size_threshold": _SMALL}
    onnx.save_model(model, str(file), save_as_external_data=is_large, **(where if is_large else {}))
    onnx.checker.check_model(str(file), full_check=True)
    return [file, beside] if is_large else [file]


def make_graph(design: Design, params: Params, precision: Precision) -> Graph:
    """The graph of a model of a family that has one; its outputs are named as in the signature."""
    flat = {name: np.asarray(leaf, np.float32) for name, leaf in paths.flatten(params).items()}
    graph = Graph(flat, precision)
    logits = GRAPHS[design.source.family.model_type](graph, design.source.config, design.head_name)
    names = list(signature_of(design).outputs)
    if len(names) == 1:
        graph.rename(logits, names[0])
        return graph
    parts = graph.ops("Split", len(names), logits, axis=-1, num_outputs=len(names))
    for part, name in zip(parts, names, strict=True):
        graph.rename(graph.op("Squeeze", part, graph.integers([-1])), name)
    return graph


def _model(graph: Graph, signature: Signature, metadata: dict[str, str]) -> Any:
    """What the onnx package writes."""
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT if signature.is_image else TensorProto.INT64
    proto = helper.make_graph(
        [
            helper.make_node(node.kind, node.inputs, node.outputs, **node.attributes)
            for node in graph.nodes
        ],
        "model",
        [_value(name, kind, axes) for name, axes in signature.inputs.items()],
        [_value(name, TensorProto.FLOAT, axes) for name, axes in signature.outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in graph.arrays.items()],
    )
    model = helper.make_model(
        proto,
        producer_name="jaxtune",
        producer_version=__version__,
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, metadata)
    return model


def _value(name: str, kind: int, axes: Axes) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, list(axes))


def _metadata(design: Design) -> dict[str, str]:
    """What a program that has the file alone can ask it."""
    found = {"model_type": design.source.family.model_type, "head": design.head_name}
    names = design.outputs.class_names
    return found | ({"class_names": json.dumps(names, ensure_ascii=False)} if names else {})
