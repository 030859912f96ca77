"""The graph of DINOv2; see `jaxtune/models/families/dinov2.py`."""

import numpy as np

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.dinov2_config import Dinov2Config
from jaxtune.models.resample import cubic


def dinov2(g: Graph, config: Dinov2Config, head: str) -> str:
    """Logits."""
    del head  # of images there is one
    name = "dinov2_with_registers" if config.num_register_tokens else "dinov2"
    x = _embed(g, config, f"{name}/embeddings")
    for i in range(config.num_hidden_layers):
        x = _layer(g, config, f"{name}/encoder/layer/{i}", x)
    x = layers.layer_norm(g, x, f"{name}/layernorm", config.layer_norm_eps)
    first = layers.alone(g, layers.first_token(g, x))
    begin = 1 + config.num_register_tokens
    last = np.iinfo(np.int64).max
    patches = g.op("Slice", x, *(g.integers([i]) for i in (begin, last, 1)))
    mean = g.op("ReduceMean", patches, g.integers([1]), keepdims=0)
    return layers.last_dense(g, g.op("Concat", first, mean, axis=-1), "classifier")


def _embed(g: Graph, config: Dinov2Config, place: str) -> str:
    """Linear patches with positions behind a class token and registers, [b t d]."""
    d, count = config.hidden_size, config.pretrained_side
    projection = f"{place}/patch_embeddings/projection"
    weights = g.params[f"{projection}/kernel"].transpose(3, 2, 0, 1)  # [h w i o] -> [o i h w]
    kernel = g.precision.kernel(g, f"{projection}/kernel", weights)
    bias, side = g.weight(f"{projection}/bias"), [config.patch_size] * 2
    x = g.op("Conv", "pixel_values", kernel, bias, strides=side)  # [b d y x]
    positions = g.params[f"{place}/position_embeddings"]
    grid = positions[:, 1:].reshape(1, count, count, d).transpose(0, 3, 1, 2)  # [1 d y x]
    x = g.op("Add", x, _resized(g, config, g.array(f"{place}/position_embeddings", grid), x))
    x = g.op("Transpose", g.op("Reshape", x, g.integers([0, d, -1])), perm=(0, 2, 1))
    first = g.params[f"{place}/cls_token"] + positions[:, :1]
    if config.num_register_tokens:
        first = np.concatenate([first, g.params[f"{place}/register_tokens"]], axis=1)
    size = g.op("Shape", x, start=0, end=1)
    shape = g.op("Concat", size, g.integers([first.shape[1], d]), axis=0)
    return g.op("Concat", g.op("Expand", g.array(f"{place}/cls_token", first), shape), x, axis=1)


def _resized(g: Graph, config: Dinov2Config, grid: str, x: str) -> str:
    """Positions for as many patches as x has of a side, [1 d y x]."""
    leading = g.integers([1, config.hidden_size])
    sizes = g.op("Concat", leading, g.op("Shape", x, start=2, end=4), axis=0)
    smooth = config.taps is not cubic
    return g.op(
        "Resize",
        *(grid, "", "", sizes),
        mode="cubic",
        cubic_coeff_a=-0.5 if smooth else -0.75,
        antialias=int(smooth),
        coordinate_transformation_mode="half_pixel",
        exclude_outside=int(smooth),
    )


def _layer(g: Graph, config: Dinov2Config, place: str, x: str) -> str:
    """One layer."""
    eps = config.layer_norm_eps
    normed = layers.layer_norm(g, x, f"{place}/norm1", eps)
    names = [f"{place}/attention/attention/{name}" for name in ("query", "key", "value")]
    parts = layers.projected(g, normed, normed, names)
    heads = layers.Heads(
        config.num_attention_heads, config.hidden_size // config.num_attention_heads
    )
    attended = layers.attention(g, parts, heads, None)
    attended = layers.dense(g, attended, f"{place}/attention/output/dense")
    x = g.op("Add", x, _scaled(g, attended, f"{place}/layer_scale1"))
    y = _feed_forward(g, config, layers.layer_norm(g, x, f"{place}/norm2", eps), f"{place}/mlp")
    return g.op("Add", x, _scaled(g, y, f"{place}/layer_scale2"))


def _feed_forward(g: Graph, config: Dinov2Config, x: str, place: str) -> str:
    if not config.use_swiglu_ffn:
        wide = layers.activate(g, layers.dense(g, x, f"{place}/fc1"), config.hidden_act)
        return layers.dense(g, wide, f"{place}/fc2")
    inner, gate = layers.split(g, layers.dense(g, x, f"{place}/weights_in"), 2)
    product = g.op("Mul", layers.activate(g, inner, "silu"), gate)
    return layers.dense(g, product, f"{place}/weights_out")


def _scaled(g: Graph, x: str, place: str) -> str:
    return g.op("Mul", x, g.weight(f"{place}/lambda1"))
