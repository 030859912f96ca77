"""BERT: a post-norm encoder with learned positions and token types, and its heads.

RoBERTa and XLM-R are the same encoder with other positions and heads (`roberta.py`).

Source: Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt32

from jaxtune.core.types import Batch
from jaxtune.models.families.bert_config import BertConfig, config_from_hf
from jaxtune.models.family import Family, Head, Names
from jaxtune.models.hf_config import check_tied
from jaxtune.models.layers import (
    ACTIVATIONS,
    DenseResidualNorm,
    Dropout,
    SelfAttention,
    attention_bias,
    dense,
    layer_norm,
    pick,
    pick_names,
    positions_of,
    table,
)
from jaxtune.models.model import Encoder, Model, TokenHead, Transform, output_layer, tied_logits


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, then LayerNorm and dropout."""

    config: BertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the tables."""
        c = self.config
        width, spread = c.hidden_size, c.initializer_range
        self.word_embeddings = table(c.vocab_size, width, spread, None)
        self.position_embeddings = table(c.max_position_embeddings, width, spread, None)
        self.token_type_embeddings = table(c.type_vocab_size, width, spread, None)
        self.norm = layer_norm(c.layer_norm_eps, self.dtype)
        self.dropout = Dropout(c.hidden_dropout_prob)

    def __call__(
        self,
        input_ids: Int[Array, "b t"],
        token_type_ids: Int[Array, "b t"],
        position_ids: Int[Array, "b t"],
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b t d"]:
        """Looks up and adds; every index must be inside its table."""
        x = self.word_embeddings(input_ids)
        x = x + self.position_embeddings(position_ids)
        x = x + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.norm(x), tokens)


class Attention(nn.Module):
    """Self-attention and its residual."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Float[Array, "b 1 q t"],
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None,
    ) -> Float[Array, "b n d"]:
        """The first half of a layer."""
        c = self.config
        attended = SelfAttention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            name="self",
        )(x, bias, tokens, places=places)
        asking = pick_names(tokens, places)
        return _residual(c, self.dtype)(attended, pick(x, places), asking)


class Intermediate(nn.Module):
    """The widening half of the feed-forward block."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t f"]:
        """`act(x W + b)`."""
        c = self.config
        x = dense(c.intermediate_size, c.initializer_range, self.dtype, name="dense")(x, tokens)
        return ACTIVATIONS[c.hidden_act](x)


class Layer(nn.Module):
    """One encoder layer: attention, then the feed-forward block, each with its residual."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Float[Array, "b 1 q t"],
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        x = Attention(self.config, self.dtype, name="attention")(x, bias, tokens, places)
        asking = pick_names(tokens, places)
        wide = Intermediate(self.config, self.dtype, name="intermediate")(x, asking)
        return _residual(self.config, self.dtype)(wide, x, asking)


class Pooler(nn.Module):
    """`tanh(x W + b)` of the first token of each example."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], tokens: UInt32[Array, "b n"] | None
    ) -> Float[Array, "b n d"]:
        """[b n d] -> [b n d]."""
        c = self.config
        inner = dense(c.hidden_size, c.initializer_range, self.dtype, name="dense")
        return jnp.tanh(inner(x, tokens))


class Bert(nn.Module):
    """The encoder in parts that can run alone.

    Attributes:
      has_pooler: whether there is a pooled first token.
    """

    config: BertConfig
    dtype: Any = jnp.float32
    has_pooler: bool = False

    def setup(self) -> None:
        """Makes the parts."""
        self.embeddings = Embeddings(self.config, self.dtype)
        self.encoder = Encoder(partial(Layer, self.config, self.dtype), self.num_layers)
        if self.has_pooler:
            self.pooler = Pooler(self.config, self.dtype)

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return self.config.num_hidden_layers

    def embed(self, batch: Batch, tokens: UInt32[Array, "b t"] | None) -> Float[Array, "b t d"]:
        """The input of layer 0. Token types are 0 where the batch has none."""
        input_ids = batch["input_ids"]
        types = batch.get("token_type_ids", jnp.zeros_like(input_ids))
        positions = positions_of(batch) + self.config.first_position
        return self.embeddings(input_ids, types, positions, tokens)

    def run_layers(
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        start: int,
        stop: int,
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b n d"]:
        """The output of layer `stop - 1`, of all tokens or of those at some places."""
        return self.encoder(x, start, stop, attention_bias(batch), tokens, places=places)

    def pool(
        self, x: Float[Array, "b n d"], tokens: UInt32[Array, "b n"] | None
    ) -> Float[Array, "b n d"]:
        """The pooled first tokens."""
        return self.pooler(x, tokens)

    def word_table(self) -> nn.Embed:
        """The word embeddings, for a head that is tied to them."""
        return self.embeddings.word_embeddings


class PooledHead(nn.Module):
    """One linear layer on the pooled first token."""

    config: BertConfig
    num_outputs: int
    dtype: Any
    reads: str = "first"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        batch: Batch,
        backbone: Bert,
        tokens: UInt32[Array, "b n"] | None,
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        del batch
        c = self.config
        pooled = Dropout(c.head_dropout)(backbone.pool(x, tokens), tokens)
        return output_layer(self.num_outputs, c.initializer_range, self.dtype)(pooled, tokens)


class Predictions(nn.Module):
    """The transformed token against every word embedding, and a bias for each word."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], words: nn.Embed, tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        c = self.config
        x = Transform(
            c.hidden_act, c.layer_norm_eps, c.initializer_range, self.dtype, name="transform"
        )(x, tokens)
        bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        return tied_logits(x, words, self.dtype) + bias


class Cls(nn.Module):
    """The folder that BERT's files have around the predictions."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], words: nn.Embed, tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t v"]:
        """See `Predictions`."""
        return Predictions(self.config, self.dtype, name="predictions")(x, words, tokens)


class MaskedLanguageHead(nn.Module):
    """Logits over the vocabulary, of each token."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        backbone: Bert,
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b t v"]:
        """See `Predictions`."""
        del batch
        return Cls(self.config, self.dtype, name="cls")(x, backbone.word_table(), tokens)


def token_head(config: BertConfig, num_outputs: int, dtype: Any) -> TokenHead:
    """A class of each token."""
    return TokenHead(num_outputs, config.head_dropout, config.initializer_range, dtype)


def span_head(config: BertConfig, dtype: Any) -> TokenHead:
    """Two numbers of each token: whether a span starts there, and whether it ends there."""
    return TokenHead(2, 0.0, config.initializer_range, dtype, "qa_outputs")


def _sequence(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    backbone = partial(Bert, config, dtype, has_pooler=True)
    return Model(backbone, "bert", PooledHead(config, num_outputs, dtype))


def _token(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    return Model(partial(Bert, config, dtype), "bert", token_head(config, num_outputs, dtype))


def _span(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    return Model(partial(Bert, config, dtype), "bert", span_head(config, dtype))


def _masked_lm(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    check_tied(config, "BERT")
    return Model(partial(Bert, config, dtype), "bert", MaskedLanguageHead(config, dtype))


def _residual(config: BertConfig, dtype: Any) -> DenseResidualNorm:
    return DenseResidualNorm(
        config.hidden_size,
        config.hidden_dropout_prob,
        config.layer_norm_eps,
        config.initializer_range,
        dtype,
        name="output",
    )


NAMES = Names(
    layers=r"(?:^|/)layer/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)LayerNorm/",
    queries_values=(r"attention/self/(?:query|value)/kernel$",),
    keys_values=(r"attention/self/(?:key|value)/kernel$",),
    widened=(r"/\d+/output/dense/kernel$",),
    attention_outputs=(r"attention/output/dense/kernel$",),
    feedforward_outputs=(r"/\d+/output/dense/kernel$",),
    keys=(r"attention/self/key/kernel$",),
)

PARTITION = (
    (r"/self/(?:query|key|value)/kernel$|intermediate/dense/kernel$", P("fsdp", "tensor")),
    (r"/self/(?:query|key|value)/bias$|intermediate/dense/bias$", P("tensor")),
    (r"/self/(?:query|key|value)/kernel_lora_b$", P(None, "tensor")),
    (r"/\d+/(?:attention/)?output/dense/kernel$", P("tensor", "fsdp")),
    (r"embeddings/embedding$", P(None, "fsdp")),
    (r"(?:pooler|transform|classifier|lm_head)/dense/kernel$", P("fsdp", None)),
)

BERT = Family(
    model_type="bert",
    backbone="bert",
    heads={
        "sequence": Head("BertForSequenceClassification", _sequence, ("bert/pooler", "classifier")),
        "token": Head("BertForTokenClassification", _token, ("classifier",)),
        "span": Head("BertForQuestionAnswering", _span, ("qa_outputs",)),
        "masked_lm": Head("BertForMaskedLM", _masked_lm, ("cls/predictions",)),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"embeddings[./]position_ids$|^cls\.predictions\.decoder\.",
    partition=PARTITION,
)
