"""GPT-2: a pre-norm causal decoder with learned positions, and its heads.

It has no token types: `token_type_ids` of a batch are not read.

Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt32

from jaxtune.core.types import Batch
from jaxtune.models.family import Family, Head, Names
from jaxtune.models.hf_config import check_defaults, check_heads, read_fields
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
from jaxtune.models.model import Layers, Model, NormedModel, TokenHead, output_layer, tied_logits

_OTHER_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""What transformers also reads, before the field's own name."""

_UNSUPPORTED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
"""Fields that change the computation, each with the one value that is computed here."""


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """The fields of a Hugging Face GPT-2 `config.json` that shape the computation."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    classifier_dropout: float | None = None
    hidden_dropout: float | None = None

    @property
    def max_length(self) -> int:
        """The most tokens of an example."""
        return self.n_positions

    @property
    def type_vocab_size(self) -> int:
        """There are no token types, and none of a batch are read."""
        return 0

    @property
    def inner_size(self) -> int:
        """The width inside the feed-forward block."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def residual_range(self) -> float:
        """The initial spread of the matrices that add to the residual, two in each layer."""
        return self.initializer_range / (2 * self.n_layer) ** 0.5

    @property
    def head_dropout(self) -> float:
        """The rate before the last layer of a classifier of tokens."""
        rates = (self.classifier_dropout, self.hidden_dropout, 0.1)
        return next(rate for rate in rates if rate is not None)


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> GPT2Config:
    """Reads the fields of a `config.json`; absent ones have GPT-2's defaults.

    Args:
      hf_config: the parsed file.
      source: its path, for messages.

    Raises:
      UserError: a field of the wrong type, or a variant of GPT-2 that is computed differently.
    """
    renamed = {own: hf_config[name] for name, own in _OTHER_NAMES.items() if name in hf_config}
    fields = {**hf_config, **renamed}
    config = read_fields(GPT2Config, fields, source, activation="activation_function")
    check_heads(config.n_embd, config.n_head, source)
    check_defaults(hf_config, source, _UNSUPPORTED, "GPT-2")
    return config


class FeedForward(nn.Module):
    """`act(x W + b) V + c`."""

    config: GPT2Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t d"]:
        """[b t d] -> [b t f] -> [b t d]."""
        c = self.config
        x = dense(c.inner_size, c.initializer_range, self.dtype, name="c_fc")(x, tokens)
        x = ACTIVATIONS[c.activation_function](x)
        return dense(c.n_embd, c.residual_range, self.dtype, name="c_proj")(x, tokens)


class Layer(nn.Module):
    """`x + attention(LayerNorm(x))`, then `x + feed_forward(LayerNorm(x))`."""

    config: GPT2Config
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Float[Array, "b 1 t t"],
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        c = self.config
        dropout = Dropout(c.resid_pdrop)
        attention = SelfAttention(
            c.n_head,
            c.attn_pdrop,
            c.initializer_range,
            self.dtype,
            projections=("c_attn",),
            output="c_proj",
            output_range=c.residual_range,
            name="attn",
        )
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_1")(x)
        attended = attention(normed, bias, tokens, places=places)
        tokens = pick_names(tokens, places)
        x = pick(x, places) + dropout(attended, tokens)
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_2")(x)
        return x + dropout(FeedForward(c, self.dtype, name="mlp")(normed, tokens), tokens)


class Transformer(nn.Module):
    """The decoder in parts that can run alone. The sums of the residual are float32."""

    config: GPT2Config
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        c = self.config
        self.wte = table(c.vocab_size, c.n_embd, c.initializer_range, None)
        self.wpe = table(c.n_positions, c.n_embd, c.initializer_range, None)
        self.dropout = Dropout(c.embd_pdrop)
        self.h = Layers(partial(Layer, c, self.dtype), c.n_layer)
        self.ln_f = layer_norm(c.layer_norm_epsilon, self.dtype, None)

    @property
    def num_layers(self) -> int:
        """Layers of the decoder."""
        return self.config.n_layer

    def embed(self, batch: Batch, tokens: UInt32[Array, "b t"] | None) -> Float[Array, "b t d"]:
        """The input of layer 0; every index must be inside its table."""
        x = self.wte(batch["input_ids"]) + self.wpe(positions_of(batch))
        return self.dropout(x, tokens)

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
        return self.h(x, start, stop, attention_bias(batch, causal=True), tokens, places=places)

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What a head reads, from the output of the last layer."""
        return self.ln_f(x)

    def word_table(self) -> nn.Embed:
        """The word embeddings, for a head that is tied to them."""
        return self.wte


class LastTokenHead(nn.Module):
    """One linear layer on the last token that is no padding, on whichever side padding is."""

    config: GPT2Config
    num_outputs: int
    dtype: Any
    reads: str = "last"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        batch: Batch,
        backbone: Transformer,
        tokens: UInt32[Array, "b n"] | None,
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        del batch, backbone
        score = output_layer(
            self.num_outputs, self.config.initializer_range, self.dtype, "score", use_bias=False
        )
        return score(x, tokens)


class LanguageHead(nn.Module):
    """Logits of the next word, from the word embeddings or from a matrix of its own."""

    config: GPT2Config
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        backbone: Transformer,
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary, of each token's successor."""
        del batch
        c = self.config
        if c.tie_word_embeddings:
            return tied_logits(x, backbone.word_table(), self.dtype)
        head = output_layer(
            c.vocab_size, c.initializer_range, self.dtype, "lm_head", use_bias=False
        )
        return head(x, tokens)


def _sequence(config: GPT2Config, num_outputs: int, dtype: Any) -> Model:
    return _model(config, dtype, LastTokenHead(config, num_outputs, dtype))


def _token(config: GPT2Config, num_outputs: int, dtype: Any) -> Model:
    head = TokenHead(num_outputs, config.head_dropout, config.initializer_range, dtype)
    return _model(config, dtype, head)


def _span(config: GPT2Config, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    return _model(config, dtype, TokenHead(2, 0.0, config.initializer_range, dtype, "qa_outputs"))


def _causal_lm(config: GPT2Config, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    return _model(config, dtype, LanguageHead(config, dtype))


def _model(config: GPT2Config, dtype: Any, top: nn.Module) -> Model:
    return NormedModel(partial(Transformer, config, dtype), "transformer", top)


NAMES = Names(
    layers=r"(?:^|/)h/(\d+)/",
    below=r"(?:^|/)(?:wte|wpe)/",
    norms=r"(?:^|/)ln_(?:1|2|f)/",
    # one matrix gives queries, keys and values, as peft's own targets for GPT-2 have it
    queries_values=(r"/attn/c_attn/kernel$",),
    keys_values=(r"/attn/c_attn/kernel$",),
    widened=(r"/mlp/c_proj/kernel$",),
    attention_outputs=(r"/attn/c_proj/kernel$",),
    feedforward_outputs=(r"/mlp/c_proj/kernel$",),
    keys=(r"/attn/c_attn/kernel$",),
)

# c_attn holds three matrices side by side, which no cut of the whole would share out evenly.
PARTITION = (
    (r"/c_attn/kernel$", P("fsdp", None)),
    (r"/c_fc/kernel$", P("fsdp", "tensor")),
    (r"/c_fc/bias$", P("tensor")),
    (r"/c_proj/kernel$", P("tensor", "fsdp")),
    (r"/w[tp]e/embedding$", P(None, "fsdp")),
)

GPT2 = Family(
    model_type="gpt2",
    backbone="transformer",
    heads={
        "sequence": Head("GPT2ForSequenceClassification", _sequence, ("score",)),
        "token": Head("GPT2ForTokenClassification", _token, ("classifier",)),
        "span": Head("GPT2ForQuestionAnswering", _span, ("qa_outputs",)),
        "causal_lm": Head("GPT2LMHeadModel", _causal_lm, ("lm_head",)),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"(?:^|\.)h\.\d+\.attn\.(?:masked_)?bias$|^lm_head\.weight$",
    partition=PARTITION,
)
