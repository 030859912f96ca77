"""The graph of BERT, RoBERTa, XLM-RoBERTa and ELECTRA; see `jaxtune/models/families/bert.py`."""

import numpy as np

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.families.electra import ElectraConfig
from jaxtune.models.families.roberta import RobertaConfig


def bert(g: Graph, config: BertConfig, head: str) -> str:
    """Logits of BERT."""
    x = _encode(g, config, "bert", head)
    if head == "sequence":
        pooled = g.op("Tanh", layers.dense(g, x, "bert/pooler/dense"))
        return layers.alone(g, layers.last_dense(g, pooled, "classifier"))
    if head == "masked_lm":
        names = "cls/predictions/transform/dense", "cls/predictions/transform/LayerNorm"
        x = layers.transform(g, x, names, config.hidden_act, config.layer_norm_eps)
        table = "bert/embeddings/word_embeddings/embedding"
        return layers.word_logits(g, x, table, "cls/predictions/bias")
    return layers.last_dense(g, x, "classifier" if head == "token" else "qa_outputs")


def roberta(g: Graph, config: RobertaConfig, head: str) -> str:
    """Logits of RoBERTa and of XLM-RoBERTa."""
    return roberta_head(g, config, "roberta", _encode(g, config, "roberta", head), head)


def roberta_head(g: Graph, config: RobertaConfig, prefix: str, x: str, head: str) -> str:
    """Logits from the output of the last layer, of the first token alone for texts."""
    if head == "sequence":
        inner = g.op("Tanh", layers.dense(g, x, "classifier/dense"))
        return layers.alone(g, layers.last_dense(g, inner, "classifier/out_proj"))
    if head == "masked_lm":
        names = "lm_head/dense", "lm_head/layer_norm"
        x = layers.transform(g, x, names, "gelu", config.layer_norm_eps)
        table = f"{prefix}/embeddings/word_embeddings/embedding"
        return layers.word_logits(g, x, table, "lm_head/bias")
    return layers.last_dense(g, x, "classifier" if head == "token" else "qa_outputs")


def electra(g: Graph, config: ElectraConfig, head: str) -> str:
    """Logits of ELECTRA."""
    x = _encode(g, config, "electra", head)
    if head == "sequence":
        inner = layers.activate(g, layers.dense(g, x, "classifier/dense"), "gelu")
        return layers.alone(g, layers.last_dense(g, inner, "classifier/out_proj"))
    if head == "masked_lm":
        names = "generator_predictions/dense", "generator_predictions/LayerNorm"
        x = layers.transform(g, x, names, "gelu", config.layer_norm_eps)
        table = "electra/embeddings/word_embeddings/embedding"
        return layers.word_logits(g, x, table, "generator_lm_head/bias")
    return layers.last_dense(g, x, "classifier" if head == "token" else "qa_outputs")


def _encode(g: Graph, config: BertConfig, prefix: str, head: str) -> str:
    """The last layer's output, [b t d]; of the first token alone where the head reads that."""
    x = embed(g, config, f"{prefix}/embeddings")
    if config.embedding_width != config.hidden_size:
        x = layers.dense(g, x, f"{prefix}/embeddings_project")
    bias = layers.bias_of(g, layers.shown(g, "attention_mask"))
    for i in range(config.num_hidden_layers):
        is_last = i == config.num_hidden_layers - 1
        asking = layers.first_two(g, x) if is_last and head == "sequence" else x
        x = _layer(g, config, f"{prefix}/encoder/layer/{i}", (x, asking), bias)
    return layers.first_token(g, x) if head == "sequence" else x


def embed(g: Graph, config: BertConfig, place: str) -> str:
    """The input of layer 0."""
    x = layers.rows(g, "input_ids", f"{place}/word_embeddings")
    x = g.op("Add", x, layers.rows(g, positions(g, config), f"{place}/position_embeddings"))
    types = f"{place}/token_type_embeddings"
    if config.type_vocab_size > 1:
        x = g.op("Add", x, layers.rows(g, "token_type_ids", types))
    else:
        x = g.op("Add", x, g.array(types, g.params[f"{types}/embedding"][0]))
    return layers.layer_norm(g, x, f"{place}/LayerNorm", config.layer_norm_eps)


def positions(g: Graph, config: BertConfig) -> str:
    """As `config.positions`: RoBERTa's are counted without padding, which has its own."""
    places = layers.positions(g, "input_ids")
    if not isinstance(config, RobertaConfig):
        return places
    pad = g.constant(config.pad_token_id, np.int64)
    is_padding = g.op("Equal", "input_ids", pad)
    count = g.op("Cast", is_padding, to=_INT64)
    so_far = g.op("CumSum", count, g.constant(1, np.int64))
    places = g.op("Add", places, g.constant(config.first_position, np.int64))
    return g.op("Where", is_padding, pad, g.op("Sub", places, so_far))


def _layer(g: Graph, config: BertConfig, place: str, inputs: tuple[str, str], bias: str) -> str:
    """One layer, of all tokens and those whose output is wanted."""
    x, asking = inputs
    heads = layers.Heads(
        config.num_attention_heads, config.hidden_size // config.num_attention_heads
    )
    names = [f"{place}/attention/self/{name}" for name in ("query", "key", "value")]
    parts = layers.projected(g, x, asking, names)
    attended = layers.attention(g, parts, heads, bias)
    y = layers.dense(g, attended, f"{place}/attention/output/dense")
    eps = config.layer_norm_eps
    x = layers.layer_norm(g, g.op("Add", asking, y), f"{place}/attention/output/LayerNorm", eps)
    return feed_forward(g, config, place, x)


def feed_forward(g: Graph, config: BertConfig, place: str, x: str) -> str:
    """The second half of a layer."""
    wide = layers.dense(g, x, f"{place}/intermediate/dense")
    y = layers.dense(g, layers.activate(g, wide, config.hidden_act), f"{place}/output/dense")
    x = g.op("Add", x, y)
    return layers.layer_norm(g, x, f"{place}/output/LayerNorm", config.layer_norm_eps)


_INT64 = 7  # of TensorProto's types
