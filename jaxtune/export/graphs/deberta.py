"""The graph of DeBERTa 2 and 3; see `jaxtune/models/families/deberta.py`."""

from jaxtune.export.graphs import bert, layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.export.graphs.relative import by_distance, skew
from jaxtune.models.families.deberta_config import DebertaConfig

_EMBEDDINGS, _ENCODER = "deberta/embeddings", "deberta/encoder"


def deberta(g: Graph, config: DebertaConfig, head: str) -> str:
    """Logits."""
    x = layers.rows(g, "input_ids", f"{_EMBEDDINGS}/word_embeddings")
    if config.position_biased_input:
        places = layers.positions(g, "input_ids")
        x = g.op("Add", x, layers.rows(g, places, f"{_EMBEDDINGS}/position_embeddings"))
    if config.token_types > 1:
        types = layers.rows(g, "token_type_ids", f"{_EMBEDDINGS}/token_type_embeddings")
        x = g.op("Add", x, types)
    elif config.token_types:
        name = f"{_EMBEDDINGS}/token_type_embeddings"
        x = g.op("Add", x, g.array(name, g.params[f"{name}/embedding"][0]))
    x = layers.layer_norm(g, x, f"{_EMBEDDINGS}/LayerNorm", config.layer_norm_eps)
    rows = _rows(g, config)
    bias = layers.bias_of(g, layers.shown(g, "attention_mask"))
    for i in range(config.num_hidden_layers):
        x = _layer(g, config, f"{_ENCODER}/layer/{i}", x, (bias, rows))
    return _head(g, config, x, head)


def _head(g: Graph, config: DebertaConfig, x: str, head: str) -> str:
    """Logits from the output of the last layer."""
    if head == "sequence":
        inner = layers.dense(g, layers.first_token(g, x), "pooler/dense")
        inner = layers.activate(g, inner, config.pooler_hidden_act)
        return layers.alone(g, layers.last_dense(g, inner, "classifier"))
    if head == "masked_lm":
        names = "cls/predictions/transform/dense", "cls/predictions/transform/LayerNorm"
        x = layers.transform(g, x, names, config.hidden_act, config.layer_norm_eps)
        table = f"{_EMBEDDINGS}/word_embeddings/embedding"
        return layers.word_logits(g, x, table, "cls/predictions/bias")
    return layers.last_dense(g, x, "classifier" if head == "token" else "qa_outputs")


def _rows(g: Graph, config: DebertaConfig) -> str:
    """Of the table of distances, for each distance that there is, [1 n d]."""
    found = by_distance(g, "distances", config.rows())
    rows = layers.rows(g, found, f"{_ENCODER}/rel_embeddings")  # [n d]
    if config.has_norm:
        rows = layers.layer_norm(g, rows, f"{_ENCODER}/LayerNorm", config.layer_norm_eps)
    return g.op("Unsqueeze", rows, g.integers([0]))


def _layer(g: Graph, config: DebertaConfig, place: str, x: str, seen: tuple[str, str]) -> str:
    """One layer."""
    inner, (bias, rows) = f"{place}/attention/self", seen
    width = config.hidden_size // config.num_attention_heads
    heads = layers.Heads(config.num_attention_heads, width)
    names = [f"{inner}/{name}_proj" for name in ("query", "key", "value")]
    query, key, value = layers.projected(g, x, x, names)
    terms, prefix = 1 + len(config.terms), "" if config.share_att_key else "pos_"
    scale = g.constant((terms * width) ** -0.5)
    if "c2p" in config.terms:
        found = _related(g, query, rows, f"{inner}/{prefix}key_proj", heads)
        bias = g.op("Add", bias, g.op("Mul", skew(g, found), scale))
    if "p2c" in config.terms:
        rising = g.op("Slice", rows, *(g.integers([i]) for i in (-1, -(2**31), 1, -1)))
        found = skew(g, _related(g, key, rising, f"{inner}/{prefix}query_proj", heads))
        found = g.op("Transpose", found, perm=(0, 1, 3, 2))  # [b h s q] -> [b h q s]
        bias = g.op("Add", bias, g.op("Mul", found, scale))
    parts = g.op("Mul", query, g.constant(terms**-0.5)), key, value
    attended = layers.attention(g, parts, heads, bias)
    y = layers.dense(g, attended, f"{place}/attention/output/dense")
    eps = config.layer_norm_eps
    x = layers.layer_norm(g, g.op("Add", x, y), f"{place}/attention/output/LayerNorm", eps)
    return bert.feed_forward(g, config, place, x)


def _related(g: Graph, x: str, rows: str, module: str, heads: layers.Heads) -> str:
    """Each token with the row of each distance, head by head: [b t d] -> [b h t n]."""
    rows = g.op("Transpose", layers.cut(g, layers.dense(g, rows, module), heads), perm=(0, 2, 3, 1))
    return g.op("MatMul", g.op("Transpose", layers.cut(g, x, heads), perm=(0, 2, 1, 3)), rows)
