"""The graph of ResNet; see `jaxtune/models/families/resnet.py`.

Batch normalisation, which multiplies each channel and adds to it, is folded into the convolution
before it.
"""

import numpy as np

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.batch_norm import BatchNorm
from jaxtune.models.families.resnet import ResNetConfig


def resnet(g: Graph, config: ResNetConfig, head: str) -> str:
    """Logits."""
    del head  # of images there is one
    x = _convolve(g, "pixel_values", "resnet/embedder/embedder", 2)
    x = layers.activate(g, x, config.hidden_act)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, depth in enumerate(config.depths):
        stride = 2 if stage > 0 or config.downsample_in_first_stage else 1
        for i in range(depth):
            place = f"resnet/encoder/stages/{stage}/layers/{i}"
            x = _layer(g, config, x, place, stride if i == 0 else 1)
    pooled = g.op("ReduceMean", x, g.integers([2, 3]), keepdims=0)
    return layers.last_dense(g, pooled, "classifier/1")


def _layer(g: Graph, config: ResNetConfig, x: str, place: str, stride: int) -> str:
    """`act(convolutions(x) + x)`; x is projected where the shapes differ."""
    strides = (stride, 1)
    if config.layer_type == "bottleneck":
        strides = (stride, 1, 1) if config.downsample_in_bottleneck else (1, stride, 1)
    y = x
    for i, own in enumerate(strides):
        y = _convolve(g, y, f"{place}/layer/{i}", own)
        y = y if i == len(strides) - 1 else g.op("Relu", y)
    shortcut = f"{place}/shortcut"
    if f"{shortcut}/convolution/kernel" in g.params:
        x = _convolve(g, x, shortcut, stride)
    return layers.activate(g, g.op("Add", y, x), config.hidden_act)


def _convolve(g: Graph, x: str, place: str, stride: int) -> str:
    """A convolution and its batch normalisation by the running statistics, [b c h w]."""
    norm = {
        name: g.params[f"{place}/normalization/{name}"].astype(np.float64)
        for name in ("scale", "bias", "mean", "var")
    }
    factor = norm["scale"] / np.sqrt(norm["var"] + BatchNorm.epsilon)  # [o]
    name = f"{place}/convolution/kernel"
    weights = (g.params[name] * factor).transpose(3, 2, 0, 1)  # [h w i o] -> [o i h w]
    kernel = g.precision.kernel(g, name, weights.astype(np.float32))
    bias = (norm["bias"] - norm["mean"] * factor).astype(np.float32)
    size = weights.shape[-1]
    return g.op(
        "Conv",
        x,
        kernel,
        g.array(f"{place}/bias", bias),
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[size // 2] * 4,
    )
