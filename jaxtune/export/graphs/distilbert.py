"""The graph of DistilBERT; see `jaxtune/models/families/distilbert.py`."""

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.distilbert import LAYER_NORM_EPS, DistilBertConfig

_EMBEDDINGS = "distilbert/embeddings"


def distilbert(g: Graph, config: DistilBertConfig, head: str) -> str:
    """Logits."""
    x = layers.rows(g, "input_ids", f"{_EMBEDDINGS}/word_embeddings")
    places = layers.positions(g, "input_ids")
    x = g.op("Add", x, layers.rows(g, places, f"{_EMBEDDINGS}/position_embeddings"))
    x = layers.layer_norm(g, x, f"{_EMBEDDINGS}/LayerNorm", LAYER_NORM_EPS)
    bias = layers.bias_of(g, layers.shown(g, "attention_mask"))
    for i in range(config.n_layers):
        is_last = i == config.n_layers - 1
        asking = layers.first_two(g, x) if is_last and head == "sequence" else x
        x = _layer(g, config, f"distilbert/transformer/layer/{i}", (x, asking), bias)
    if head == "sequence":
        inner = g.op("Relu", layers.dense(g, layers.first_token(g, x), "pre_classifier"))
        return layers.alone(g, layers.last_dense(g, inner, "classifier"))
    if head == "masked_lm":
        names = "vocab_transform", "vocab_layer_norm"
        x = layers.transform(g, x, names, config.activation, LAYER_NORM_EPS)
        table = f"{_EMBEDDINGS}/word_embeddings/embedding"
        return layers.word_logits(g, x, table, "vocab_projector/bias")
    return layers.last_dense(g, x, "classifier" if head == "token" else "qa_outputs")


def _layer(
    g: Graph, config: DistilBertConfig, place: str, inputs: tuple[str, str], bias: str
) -> str:
    """One layer, of all tokens and those whose output is wanted."""
    x, asking = inputs
    names = [f"{place}/attention/{name}" for name in ("q_lin", "k_lin", "v_lin")]
    parts = layers.projected(g, x, asking, names)
    heads = layers.Heads(config.n_heads, config.dim // config.n_heads)
    attended = layers.attention(g, parts, heads, bias)
    y = g.op("Add", asking, layers.dense(g, attended, f"{place}/attention/out_lin"))
    x = layers.layer_norm(g, y, f"{place}/sa_layer_norm", LAYER_NORM_EPS)
    wide = layers.activate(g, layers.dense(g, x, f"{place}/ffn/lin1"), config.activation)
    y = g.op("Add", x, layers.dense(g, wide, f"{place}/ffn/lin2"))
    return layers.layer_norm(g, y, f"{place}/output_layer_norm", LAYER_NORM_EPS)
