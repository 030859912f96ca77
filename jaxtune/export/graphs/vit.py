"""The graph of ViT; see `jaxtune/models/families/vit.py`."""

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.vit import ViTConfig


def vit(g: Graph, config: ViTConfig, head: str) -> str:
    """Logits."""
    del head  # of images there is one
    x = _embed(g, config)
    for i in range(config.num_hidden_layers):
        is_last = i == config.num_hidden_layers - 1
        x = _layer(g, config, f"vit/encoder/layer/{i}", x, is_last)
    x = layers.layer_norm(g, x, "vit/layernorm", config.layer_norm_eps)
    return layers.alone(g, layers.last_dense(g, x, "classifier"))


def _embed(g: Graph, config: ViTConfig) -> str:
    """Linear patches behind a class token, plus positions, [b t d]."""
    place, d = "vit/embeddings", config.hidden_size
    projection = f"{place}/patch_embeddings/projection"
    weights = g.params[f"{projection}/kernel"].transpose(3, 2, 0, 1)  # [h w i o] -> [o i h w]
    kernel = g.precision.kernel(g, f"{projection}/kernel", weights)
    bias, side = g.weight(f"{projection}/bias"), [config.patch_size] * 2
    patches = g.op("Conv", "pixel_values", kernel, bias, strides=side)  # [b d y x]
    patches = g.op("Reshape", patches, g.integers([0, d, -1]))
    patches = g.op("Transpose", patches, perm=(0, 2, 1))
    count = g.op("Shape", patches, start=0, end=1)
    shape = g.op("Concat", count, g.integers([1, d]), axis=0)
    first = g.op("Expand", g.weight(f"{place}/cls_token"), shape)
    x = g.op("Concat", first, patches, axis=1)
    return g.op("Add", x, g.weight(f"{place}/position_embeddings"))


def _layer(g: Graph, config: ViTConfig, place: str, x: str, is_last: bool) -> str:
    """One layer; of the last, what the head reads: the class token."""
    eps = config.layer_norm_eps
    normed = layers.layer_norm(g, x, f"{place}/layernorm_before", eps)
    asking = layers.first_token(g, normed) if is_last else normed
    x = layers.first_token(g, x) if is_last else x
    names = [f"{place}/attention/attention/{name}" for name in ("query", "key", "value")]
    parts = layers.projected(g, normed, asking, names)
    heads = layers.Heads(
        config.num_attention_heads, config.hidden_size // config.num_attention_heads
    )
    attended = layers.attention(g, parts, heads, None)
    x = g.op("Add", x, layers.dense(g, attended, f"{place}/attention/output/dense"))
    normed = layers.layer_norm(g, x, f"{place}/layernorm_after", eps)
    wide = layers.dense(g, normed, f"{place}/intermediate/dense")
    wide = layers.activate(g, wide, config.hidden_act)
    return g.op("Add", x, layers.dense(g, wide, f"{place}/output/dense"))
