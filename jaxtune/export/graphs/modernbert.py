"""The graph of ModernBERT; see `jaxtune/models/families/modernbert.py`."""

from typing import NamedTuple

import numpy as np

from jaxtune.export.graphs import layers
from jaxtune.export.graphs.graph import Graph
from jaxtune.models.families.modernbert_config import ModernBertConfig


class View(NamedTuple):
    """What the attention of one kind of layers knows of places.

    Attributes:
      bias: of the scores.
      cos: of the rotary angles, [t 1 k/2].
      sin: likewise.
    """

    bias: str
    cos: str
    sin: str


def modernbert(g: Graph, config: ModernBertConfig, head: str) -> str:
    """Logits."""
    x = layers.rows(g, "input_ids", "model/embeddings/tok_embeddings")
    x = layers.layer_norm(g, x, "model/embeddings/norm", config.norm_eps)
    seen = layers.shown(g, "attention_mask")
    ahead = g.op("Abs", layers.distances(g, "input_ids"))
    is_near = g.op("LessOrEqual", ahead, g.constant(config.local_attention // 2, np.int64))
    everywhere = _view(g, config, seen, config.global_rope_theta)
    nearby = _view(g, config, g.op("And", seen, is_near), config.local_rope_theta)
    for i in range(config.num_hidden_layers):
        x = _layer(g, config, i, x, everywhere if config.is_global(i) else nearby)
    if head == "sequence" and config.classifier_pooling == "cls":
        x = layers.first_token(g, x)
    x = layers.layer_norm(g, x, "model/final_norm", config.norm_eps)
    if head == "sequence":
        return layers.alone(g, _classify(g, config, _pooled(g, config, x)))
    if head != "masked_lm":
        return _classify(g, config, x)
    x = _transform(g, config, x)
    if not config.tie_word_embeddings:
        return layers.dense(g, x, "decoder")
    bias = "decoder/bias" if config.decoder_bias else None
    return layers.word_logits(g, x, "model/embeddings/tok_embeddings/embedding", bias)


def _view(g: Graph, config: ModernBertConfig, allowed: str, theta: float) -> View:
    """The bias and the angles of the layers of one kind."""
    width = config.head_size
    frequencies = theta ** (-np.arange(0, width, 2) / width)
    places = g.op("Cast", layers.positions(g, "input_ids"), to=_FLOAT)
    places = g.op("Unsqueeze", places, g.integers([1, 2]))  # [t 1 1]
    angles = g.op("Mul", places, g.constant(frequencies))
    return View(layers.bias_of(g, allowed), g.op("Cos", angles), g.op("Sin", angles))


def _layer(g: Graph, config: ModernBertConfig, index: int, x: str, view: View) -> str:
    """One layer; the first has no LayerNorm before its attention."""
    place, eps = f"model/layers/{index}", config.norm_eps
    normed = layers.layer_norm(g, x, f"{place}/attn_norm", eps) if index else x
    query, key, value = layers.split(g, layers.dense(g, normed, f"{place}/attn/Wqkv"), 3)
    heads = layers.Heads(config.num_attention_heads, config.head_size)
    query, key = (_rotate(g, part, heads, view) for part in (query, key))
    attended = layers.attention(g, (query, key, value), heads, view.bias)
    x = g.op("Add", x, layers.dense(g, attended, f"{place}/attn/Wo"))
    normed = layers.layer_norm(g, x, f"{place}/mlp_norm", eps)
    inner, gate = layers.split(g, layers.dense(g, normed, f"{place}/mlp/Wi"), 2)
    wide = g.op("Mul", layers.activate(g, inner, config.hidden_activation), gate)
    return g.op("Add", x, layers.dense(g, wide, f"{place}/mlp/Wo"))


def _rotate(g: Graph, x: str, heads: layers.Heads, view: View) -> str:
    """Turns each pair (x_i, x_(i + k/2)) by its angle, [b t d]."""
    first, second = layers.split(g, layers.cut(g, x, heads), 2)
    turned = [
        g.op("Sub", g.op("Mul", first, view.cos), g.op("Mul", second, view.sin)),
        g.op("Add", g.op("Mul", second, view.cos), g.op("Mul", first, view.sin)),
    ]
    return layers.joined(g, g.op("Concat", *turned, axis=-1), heads)


def _pooled(g: Graph, config: ModernBertConfig, x: str) -> str:
    """What stands for each example, [b 1 d]: its first token, or the mean of what is seen."""
    if config.classifier_pooling == "cls":
        return x
    mask = g.op("Cast", "attention_mask", to=_FLOAT)
    mask = g.op("Unsqueeze", mask, g.integers([1]))  # [b 1 t]
    count = g.op("ReduceSum", mask, g.integers([2]), keepdims=1)
    return g.op("Div", g.op("MatMul", mask, x), g.op("Max", count, g.constant(1.0)))


def _transform(g: Graph, config: ModernBertConfig, x: str) -> str:
    names, activation = ("head/dense", "head/norm"), config.classifier_activation
    return layers.transform(g, x, names, activation, config.norm_eps)


def _classify(g: Graph, config: ModernBertConfig, x: str) -> str:
    return layers.last_dense(g, _transform(g, config, x), "classifier")


_FLOAT = 1  # of TensorProto's types
