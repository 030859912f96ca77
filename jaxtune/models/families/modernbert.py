"""ModernBERT: a pre-norm encoder with rotary positions and local attention, and its heads.

It has no token types: `token_type_ids` of a batch are not read.

Source: Warner et al. 2024, Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder,
section 2.1.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt32

from jaxtune.core.types import Batch
from jaxtune.models.families.modernbert_config import ModernBertConfig, config_from_hf
from jaxtune.models.family import Family, Head, Names
from jaxtune.models.layers import (
    ACTIVATIONS,
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
from jaxtune.models.model import (
    Layers,
    Model,
    NormedModel,
    Transform,
    mean_tokens,
    output_layer,
    tied_logits,
)
from jaxtune.models.rotary import Rotation, rotate, rotation
from jaxtune.models.tokens import examples_of
from jaxtune.parallel.collectives import split_features


class View(NamedTuple):
    """What the attention of one kind of layers knows of places.

    Attributes:
      bias: of the scores: which tokens are seen.
      turned: the rotary positions.
    """

    bias: Float[Array, "b 1 q t"]
    turned: Rotation


class Embeddings(nn.Module):
    """Word embeddings, then LayerNorm and dropout."""

    config: ModernBertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the table. What it gives starts the residual, whose sums are float32."""
        c = self.config
        spread = _drawn(c, c.initializer_range)
        self.tok_embeddings = table(c.vocab_size, c.hidden_size, spread, None)
        at_least_float32 = jnp.promote_types(self.dtype, jnp.float32)
        self.norm = layer_norm(c.norm_eps, at_least_float32, None, c.norm_bias)
        self.dropout = Dropout(c.embedding_dropout)

    def __call__(
        self, input_ids: Array, tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t d"]:
        """Looks up; every index must be inside the table."""
        return self.dropout(self.norm(self.tok_embeddings(input_ids)), tokens)


class FeedForward(nn.Module):
    """`(act(u) * g) W_o` where `[u; g] = x W_i`.

    Source: Shazeer 2020, GLU Variants Improve Transformer, section 2.
    """

    config: ModernBertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t d"]:
        """[b t d] -> [b t 2f] -> [b t f] -> [b t d]."""
        c = self.config
        spread, last_spread = _drawn(c, c.initializer_range), _drawn(c, c.residual_range)
        both = dense(2 * c.intermediate_size, spread, self.dtype, "Wi", c.mlp_bias)(x, tokens)
        inner, gate = split_features(both, 2)
        x = ACTIVATIONS[c.hidden_activation](inner) * gate
        x = Dropout(c.mlp_dropout)(x, tokens)
        return dense(c.hidden_size, last_spread, self.dtype, "Wo", c.mlp_bias)(x, tokens)


class Layer(nn.Module):
    """`x + attention(LayerNorm(x))`, then `x + feed_forward(LayerNorm(x))`.

    Attributes:
      index: its place; the first one has no LayerNorm before its attention, as its input comes from
        one.
    """

    config: ModernBertConfig
    dtype: Any
    index: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        everywhere: View,
        nearby: View,
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone, with one of the two views."""
        c = self.config
        view = everywhere if c.is_global(self.index) else nearby
        attention = SelfAttention(
            c.num_attention_heads,
            c.attention_dropout,
            _drawn(c, c.initializer_range),
            self.dtype,
            projections=("Wqkv",),
            output="Wo",
            use_bias=c.attention_bias,
            output_range=_drawn(c, c.residual_range),
            name="attn",
        )
        normed = x if self.index == 0 else _norm(c, self.dtype, "attn_norm")(x)
        attended = attention(normed, view.bias, tokens, partial(rotate, by=view.turned), places)
        tokens = pick_names(tokens, places)
        x = pick(x, places) + Dropout(c.attention_dropout)(attended, tokens)
        normed = _norm(c, self.dtype, "mlp_norm")(x)
        return x + FeedForward(c, self.dtype, name="mlp")(normed, tokens)


class ModernBert(nn.Module):
    """The encoder in parts that can run alone."""

    config: ModernBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        c = self.config
        self.embeddings = Embeddings(c, self.dtype)
        self.layers = Layers(partial(_layer, c, self.dtype), c.num_hidden_layers)
        self.final_norm = _norm(c, self.dtype, None)

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return self.config.num_hidden_layers

    def embed(self, batch: Batch, tokens: UInt32[Array, "b t"] | None) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.embeddings(batch["input_ids"], tokens)

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
        c = self.config
        turn = partial(rotation, positions_of(batch), c.head_size)
        everywhere = View(attention_bias(batch), turn(c.global_rope_theta))
        near = attention_bias(batch, window=c.local_attention // 2)
        nearby = View(near, turn(c.local_rope_theta))
        return self.layers(x, start, stop, everywhere, nearby, tokens, places=places)

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What a head reads, from the output of the last layer."""
        return self.final_norm(x)

    def word_table(self) -> nn.Embed:
        """The word embeddings, for a head that is tied to them."""
        return self.embeddings.tok_embeddings


class ClassifierHead(nn.Module):
    """A transformed and a last linear layer, of each token or of what stands for an example.

    Attributes:
      pooling: `cls` for the first token, `mean` for the mean over tokens that are no padding; None
        for every token.
    """

    config: ModernBertConfig
    num_outputs: int
    dtype: Any
    pooling: str | None = None

    @property
    def reads(self) -> str | None:
        """See `Model.top`."""
        return "first" if self.pooling == "cls" else None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        backbone: ModernBert,
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b c"] | Float[Array, "b t c"]:
        """Logits of each example, or of each token."""
        del backbone
        c = self.config
        if self.pooling == "mean":
            rows, x = len(x), mean_tokens(x, batch)
            if tokens is not None:
                tokens = examples_of(batch, rows).reshape(x.shape[:-1])
        x = _transform(c, self.dtype)(x, tokens)
        x = Dropout(c.classifier_dropout)(x, tokens)
        last = output_layer(self.num_outputs, _drawn(c, c.hidden_size**-0.5), self.dtype)
        return last(x, tokens)


class Decoder(nn.Module):
    """Every token against every word embedding, and a bias for each word."""

    config: ModernBertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], words: nn.Embed) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        bias = self.param("bias", nn.initializers.zeros, (self.config.vocab_size,))
        return tied_logits(x, words, self.dtype) + bias


class MaskedLanguageHead(nn.Module):
    """Logits over the vocabulary, of each token."""

    config: ModernBertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        backbone: ModernBert,
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b t v"]:
        """From the word embeddings, or from a matrix of its own."""
        del batch
        c = self.config
        x = _transform(c, self.dtype)(x, tokens)
        if c.tie_word_embeddings and c.decoder_bias:
            return Decoder(c, self.dtype, name="decoder")(x, backbone.word_table())
        if c.tie_word_embeddings:
            return tied_logits(x, backbone.word_table(), self.dtype)
        spread = _drawn(c, c.residual_range)
        last = output_layer(c.vocab_size, spread, self.dtype, "decoder", c.decoder_bias)
        return last(x, tokens)


def _layer(config: ModernBertConfig, dtype: Any, name: str) -> Layer:
    return Layer(config, dtype, int(name), name=name)


def _norm(config: ModernBertConfig, dtype: Any, name: str | None) -> nn.LayerNorm:
    return layer_norm(config.norm_eps, dtype, name, config.norm_bias)


def _transform(config: ModernBertConfig, dtype: Any) -> Transform:
    return Transform(
        config.classifier_activation,
        config.norm_eps,
        _drawn(config, config.residual_range),
        dtype,
        norm_name="norm",
        use_bias=config.classifier_bias,
        norm_bias=config.norm_bias,
        name="head",
    )


def _drawn(config: ModernBertConfig, spread: float) -> jax.nn.initializers.Initializer:
    """From N(0, spread^2) without its tails, as transformers draws them."""
    cutoff = config.initializer_cutoff_factor
    return jax.nn.initializers.truncated_normal(spread, lower=-cutoff, upper=cutoff)


def _sequence(config: ModernBertConfig, num_outputs: int, dtype: Any) -> Model:
    pooling = config.classifier_pooling
    return _model(config, dtype, ClassifierHead(config, num_outputs, dtype, pooling))


def _token(config: ModernBertConfig, num_outputs: int, dtype: Any) -> Model:
    return _model(config, dtype, ClassifierHead(config, num_outputs, dtype))


def _span(config: ModernBertConfig, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    return _model(config, dtype, ClassifierHead(config, 2, dtype))


def _masked_lm(config: ModernBertConfig, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    return _model(config, dtype, MaskedLanguageHead(config, dtype))


def _model(config: ModernBertConfig, dtype: Any, top: nn.Module) -> Model:
    return NormedModel(partial(ModernBert, config, dtype), "model", top)


NAMES = Names(
    layers=r"(?:^|/)layers/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)(?:(?:attn|mlp|final)_)?norm/",
    queries_values=(r"/attn/Wqkv/kernel$",),  # one matrix gives queries, keys and values
    keys_values=(r"/attn/Wqkv/kernel$",),
    widened=(r"/mlp/Wo/kernel$",),
    attention_outputs=(r"/attn/Wo/kernel$",),
    feedforward_outputs=(r"/mlp/Wo/kernel$",),
    keys=(r"/attn/Wqkv/kernel$",),
)

# Wqkv and Wi hold several matrices side by side, which no cut of the whole would share out evenly.
PARTITION = (
    (r"/(?:Wqkv|Wi)/kernel$", P("fsdp", None)),
    (r"/Wo/kernel$", P("tensor", "fsdp")),
    (r"embeddings/embedding$", P(None, "fsdp")),
    (r"^head/dense/kernel$", P("fsdp", None)),
)

MODERNBERT = Family(
    model_type="modernbert",
    backbone="model",
    heads={
        "sequence": Head("ModernBertForSequenceClassification", _sequence, ("head", "classifier")),
        "token": Head("ModernBertForTokenClassification", _token, ("head", "classifier")),
        "span": Head("ModernBertForQuestionAnswering", _span, ("head", "classifier")),
        "masked_lm": Head("ModernBertForMaskedLM", _masked_lm, ("head", "decoder")),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"^decoder\.weight$",
    partition=PARTITION,
)
