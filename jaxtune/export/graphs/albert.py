"""The graph of ALBERT; see `jaxtune/models/families/albert.py`."""

from jaxtune.export.graphs import bert, layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.albert import AlbertConfig

_LAYER = "albert/encoder/albert_layer_groups/0/albert_layers/0"


def albert(g: Graph, config: AlbertConfig, head: str) -> str:
    """Logits."""
    x = bert.embed(g, config, "albert/embeddings")
    x = layers.dense(g, x, "albert/encoder/embedding_hidden_mapping_in")
    bias = layers.bias_of(g, layers.shown(g, "attention_mask"))
    for i in range(config.num_hidden_layers):
        is_last = i == config.num_hidden_layers - 1
        asking = layers.first_two(g, x) if is_last and head == "sequence" else x
        x = _layer(g, config, (x, asking), bias)
    if head == "sequence":
        pooled = g.op("Tanh", layers.dense(g, layers.first_token(g, x), "albert/pooler"))
        return layers.alone(g, layers.last_dense(g, pooled, "classifier"))
    if head == "masked_lm":
        names = "predictions/dense", "predictions/LayerNorm"
        x = layers.transform(g, x, names, config.hidden_act, config.layer_norm_eps)
        table = "albert/embeddings/word_embeddings/embedding"
        return layers.word_logits(g, x, table, "predictions/bias")
    return layers.last_dense(g, x, "classifier" if head == "token" else "qa_outputs")


def _layer(g: Graph, config: AlbertConfig, inputs: tuple[str, str], bias: str) -> str:
    """The layer, of all tokens and those whose output is wanted."""
    (x, asking), eps = inputs, config.layer_norm_eps
    width = config.hidden_size // config.num_attention_heads
    names = [f"{_LAYER}/attention/{name}" for name in ("query", "key", "value")]
    parts = layers.projected(g, x, asking, names)
    attended = layers.attention(g, parts, layers.Heads(config.num_attention_heads, width), bias)
    y = layers.dense(g, attended, f"{_LAYER}/attention/dense")
    x = layers.layer_norm(g, g.op("Add", asking, y), f"{_LAYER}/attention/LayerNorm", eps)
    wide = layers.activate(g, layers.dense(g, x, f"{_LAYER}/ffn"), config.hidden_act)
    y = layers.dense(g, wide, f"{_LAYER}/ffn_output")
    return layers.layer_norm(g, g.op("Add", x, y), f"{_LAYER}/full_layer_layer_norm", eps)
