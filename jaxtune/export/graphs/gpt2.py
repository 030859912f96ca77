"""The graph of GPT-2; see `jaxtune/models/families/gpt2.py`."""

import numpy as np

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.gpt2 import GPT2Config


def gpt2(g: Graph, config: GPT2Config, head: str) -> str:
    """Logits."""
    places = layers.positions(g, "input_ids")
    x = layers.rows(g, "input_ids", "transformer/wte")
    x = g.op("Add", x, layers.rows(g, places, "transformer/wpe"))
    behind = g.op("LessOrEqual", layers.distances(g, "input_ids"), g.constant(0, np.int64))
    bias = layers.bias_of(g, g.op("And", layers.shown(g, "attention_mask"), behind))
    for i in range(config.n_layer):
        x = _layer(g, config, f"transformer/h/{i}", x, bias)
    if head == "sequence":
        x = layers.last_token(g, x, "attention_mask")
    x = layers.layer_norm(g, x, "transformer/ln_f", config.layer_norm_epsilon)
    if head == "sequence":
        return layers.alone(g, layers.last_dense(g, x, "score"))
    if head == "causal_lm":
        if config.tie_word_embeddings:
            return layers.word_logits(g, x, "transformer/wte/embedding", None)
        return layers.dense(g, x, "lm_head")
    return layers.last_dense(g, x, "classifier" if head == "token" else "qa_outputs")


def _layer(g: Graph, config: GPT2Config, place: str, x: str, bias: str) -> str:
    """One layer."""
    normed = layers.layer_norm(g, x, f"{place}/ln_1", config.layer_norm_epsilon)
    query, key, value = layers.split(g, layers.dense(g, normed, f"{place}/attn/c_attn"), 3)
    heads = layers.Heads(config.n_head, config.n_embd // config.n_head)
    attended = layers.attention(g, (query, key, value), heads, bias)
    x = g.op("Add", x, layers.dense(g, attended, f"{place}/attn/c_proj"))
    normed = layers.layer_norm(g, x, f"{place}/ln_2", config.layer_norm_epsilon)
    wide = layers.dense(g, normed, f"{place}/mlp/c_fc")
    wide = layers.activate(g, wide, config.activation_function)
    return g.op("Add", x, layers.dense(g, wide, f"{place}/mlp/c_proj"))
