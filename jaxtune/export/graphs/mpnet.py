"""The graph of MPNet; see `jaxtune/models/families/mpnet.py`."""

from jaxtune.export.graphs import bert, layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.export.graphs.relative import by_distance, skew
from jaxtune.models.families.mpnet import MPNetConfig, buckets

_EMBEDDINGS = "mpnet/embeddings"


def mpnet(g: Graph, config: MPNetConfig, head: str) -> str:
    """Logits."""
    x = layers.rows(g, "input_ids", f"{_EMBEDDINGS}/word_embeddings")
    places = bert.positions(g, config)
    x = g.op("Add", x, layers.rows(g, places, f"{_EMBEDDINGS}/position_embeddings"))
    x = layers.layer_norm(g, x, f"{_EMBEDDINGS}/LayerNorm", config.layer_norm_eps)
    bias = layers.bias_of(g, layers.shown(g, "attention_mask"))
    bias = g.op("Add", bias, _scores(g, config))
    for i in range(config.num_hidden_layers):
        x = _layer(g, config, f"mpnet/encoder/layer/{i}", x, bias)
    return bert.roberta_head(
        g, config, "mpnet", layers.first_token(g, x) if head == "sequence" else x, head
    )


def _scores(g: Graph, config: MPNetConfig) -> str:
    """Of each pair of tokens by their distance, [1 h t t]."""
    found = buckets(config.relative_attention_num_buckets, config.max_length)
    table = "mpnet/encoder/relative_attention_bias"
    rows = layers.rows(g, by_distance(g, "buckets", found), table)  # [n h]
    rows = g.op("Unsqueeze", g.op("Transpose", rows, perm=(1, 0)), g.integers([0, 2]))
    t = g.op("Reshape", layers.length_of(g, "input_ids"), g.integers([1]))
    shape = g.op("Concat", g.integers([1, 1]), t, g.integers([1]), axis=0)
    return skew(g, g.op("Expand", rows, shape))  # [1 h 1 n] -> [1 h t n] -> [1 h t t]


def _layer(g: Graph, config: MPNetConfig, place: str, x: str, bias: str) -> str:
    """One layer."""
    width, eps = config.hidden_size // config.num_attention_heads, config.layer_norm_eps
    parts = layers.projected(g, x, x, [f"{place}/attention/attn/{name}" for name in "qkv"])
    attended = layers.attention(g, parts, layers.Heads(config.num_attention_heads, width), bias)
    y = layers.dense(g, attended, f"{place}/attention/attn/o")
    x = layers.layer_norm(g, g.op("Add", x, y), f"{place}/attention/LayerNorm", eps)
    return bert.feed_forward(g, config, place, x)
