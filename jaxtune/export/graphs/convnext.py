"""The graph of ConvNeXt; see `jaxtune/models/families/convnext.py`.

Convolutions have channels first, [b d h w], and what is between them channels last, [b h w d].
"""

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.convnext import EPS, ConvNextConfig


def convnext(g: Graph, config: ConvNextConfig, head: str) -> str:
    """Logits."""
    del head  # of images there is one
    sides = [config.patch_size] * 2
    x = _convolve(g, "pixel_values", "convnext/embeddings/patch_embeddings", strides=sides)
    x = layers.layer_norm(g, _last(g, x), "convnext/embeddings/layernorm", EPS)
    for stage, depth in enumerate(config.depths):
        place = f"convnext/encoder/stages/{stage}"
        if stage:
            x = layers.layer_norm(g, x, f"{place}/downsampling_layer/0", EPS)
            inner = f"{place}/downsampling_layer/1"
            x = _last(g, _convolve(g, _first(g, x), inner, strides=[2, 2]))
        for i in range(depth):
            x = _layer(g, config, f"{place}/layers/{i}", x)
    pooled = g.op("ReduceMean", x, g.integers([1, 2]), keepdims=0)
    pooled = layers.layer_norm(g, pooled, "convnext/layernorm", config.layer_norm_eps)
    return layers.last_dense(g, pooled, "classifier")


def _layer(g: Graph, config: ConvNextConfig, place: str, x: str) -> str:
    """One layer, [b h w d]."""
    channels = g.params[f"{place}/dwconv/kernel"].shape[-1]
    y = _convolve(g, _first(g, x), f"{place}/dwconv", group=channels, pads=[3] * 4)
    y = layers.layer_norm(g, _last(g, y), f"{place}/layernorm", EPS)
    y = layers.activate(g, layers.dense(g, y, f"{place}/pwconv1"), config.hidden_act)
    y = layers.dense(g, y, f"{place}/pwconv2")
    scale = f"{place}/layer_scale_parameter"
    return g.op("Add", x, g.op("Mul", y, g.weight(scale)) if scale in g.params else y)


def _convolve(g: Graph, x: str, place: str, **attributes: object) -> str:
    """A convolution of [b i h w]."""
    name = f"{place}/kernel"
    kernel = g.precision.kernel(g, name, g.params[name].transpose(3, 2, 0, 1))
    return g.op("Conv", x, kernel, g.weight(f"{place}/bias"), **attributes)


def _first(g: Graph, x: str) -> str:
    """[b h w d] -> [b d h w]."""
    return g.op("Transpose", x, perm=(0, 3, 1, 2))


def _last(g: Graph, x: str) -> str:
    """[b d h w] -> [b h w d]."""
    return g.op("Transpose", x, perm=(0, 2, 3, 1))
