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
from jaxtyping import Array, Float

from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.attention import Seen, SelfAttention, attention_bias
from jaxtune.models.family import Family, Head, Matrices, Names
from jaxtune.models.heads import LinearHead, span_head, token_head
from jaxtune.models.hf_config import check_defaults, check_heads, read_fields
from jaxtune.models.inputs import positions_of
from jaxtune.models.layers import Dropout, NoiseIds, dense, layer_norm, table
from jaxtune.models.model import Layers, Part
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.vocabulary import TiedLayer, own_layer

ALIASES = {
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
        """As `initializer_range`, of the matrices that add to the residual, two in each layer."""
        return self.initializer_range / (2 * self.n_layer) ** 0.5

    @property
    def head_dropout(self) -> float:
        """The rate before the last layer of a classifier of tokens."""
        rates = (self.classifier_dropout, self.hidden_dropout, 0.1)
        return next(rate for rate in rates if rate is not None)


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> GPT2Config:
    """See `Family`."""
    config = read_fields(
        GPT2Config, hf_config, source, activation="activation_function", aliases=ALIASES
    )
    check_heads(config.n_embd, config.n_head, source)
    check_defaults(hf_config, source, _UNSUPPORTED, "GPT-2")
    return config


class FeedForward(nn.Module):
    """`act(x W + b) V + c`."""

    config: GPT2Config
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """[b t d] -> [b t f] -> [b t d]."""
        c = self.config
        x = dense(c.inner_size, c.initializer_range, self.dtype, name="c_fc")(x, noise_ids)
        x = ACTIVATIONS[c.activation_function](x)
        return dense(c.n_embd, c.residual_range, self.dtype, name="c_proj")(x, noise_ids)


class Layer(nn.Module):
    """`x + attention(LayerNorm(x))`, then `x + feed_forward(LayerNorm(x))`."""

    config: GPT2Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Seen, noise_ids: NoiseIds, places: Places = None
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
            output_init=c.residual_range,
            name="attn",
        )
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_1")(x)
        attended = attention(normed, bias, noise_ids, places)
        noise_ids = pick_noise_ids(noise_ids, places)
        x = pick(x, places) + dropout(attended, noise_ids)
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_2")(x)
        return x + dropout(FeedForward(c, self.dtype, name="mlp")(normed, noise_ids), noise_ids)


class Transformer(nn.Module):
    """The decoder in parts that can run alone. The sums of the residual are float32."""

    config: GPT2Config
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        c = self.config
        self.wte = table(c.vocab_size, c.n_embd, c.initializer_range, dtype=self.dtype)
        self.wpe = table(c.n_positions, c.n_embd, c.initializer_range)
        self.dropout = Dropout(c.embd_pdrop)
        self.h = Layers(partial(Layer, c, self.dtype), c.n_layer)
        self.ln_f = layer_norm(c.layer_norm_epsilon, self.dtype, None)

    @property
    def num_layers(self) -> int:
        """Layers of the decoder."""
        return self.config.n_layer

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0; every index must be inside its table."""
        x = self.wte(batch["input_ids"]) + self.wpe(positions_of(batch))
        return self.dropout(x, noise_ids)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        return self.h(x, part, attention_bias(batch, causal=True, dtype=self.dtype), noise_ids)

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What a head reads, from the output of the last layer."""
        return self.ln_f(x)

    def word_table(self) -> nn.Embed:
        """The word embeddings, for a head that is tied to them."""
        return self.wte


class LanguageHead(nn.Module):
    """Logits of the next word, from the word embeddings or from a matrix of its own."""

    config: GPT2Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: Transformer, noise_ids: NoiseIds
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary, of each token's successor."""
        c = self.config
        if c.tie_word_embeddings:
            return TiedLayer(self.dtype)(x, backbone.word_table().embedding)
        size, init = c.vocab_size, c.initializer_range
        return own_layer(size, init, self.dtype, "lm_head", use_bias=False)(x, noise_ids)


def _sequence(config: GPT2Config, num_outputs: int, dtype: Any) -> LinearHead:
    """Of the last token that is no padding, on whichever side padding is."""
    init = config.initializer_range
    return LinearHead(num_outputs, init, dtype, layer="score", use_bias=False, reads="last")


def _causal_lm(config: GPT2Config, num_outputs: int, dtype: Any) -> LanguageHead:
    del num_outputs
    return LanguageHead(config, dtype)


def _is_tied(config: GPT2Config) -> bool:
    return config.tie_word_embeddings


NAMES = Names(
    layers=r"(?:^|/)h/(\d+)/",
    below=r"(?:^|/)(?:wte|wpe)/",
    norms=r"(?:^|/)ln_(?:1|2|f)/",
    # one matrix gives queries, keys and values, as peft's own targets for GPT-2 have it
    matrices=Matrices(
        *(r"/attn/c_attn/kernel$",) * 3,
        attention_output=r"/attn/c_proj/kernel$",
        feedforward_output=r"/mlp/c_proj/kernel$",
    ),
)

# c_attn holds three matrices side by side, which no cut of the whole would share out evenly.
SHARDING_RULES = (
    (r"/c_attn/kernel$", P("fsdp", None)),
    (r"/c_fc/kernel$", P("fsdp", "tensor")),
    (r"/c_fc/bias$", P("tensor")),
    (r"/c_proj/kernel$", P("tensor", "fsdp")),
    (r"/w[tp]e/embedding$", P(None, "fsdp")),
)

GPT2 = Family(
    model_type="gpt2",
    prefix="transformer",
    backbone=Transformer,
    heads={
        "sequence": Head("GPT2ForSequenceClassification", _sequence, ("score",)),
        "token": Head("GPT2ForTokenClassification", token_head, ("classifier",)),
        "span": Head("GPT2ForQuestionAnswering", span_head, ("qa_outputs",)),
        "causal_lm": Head("GPT2LMHeadModel", _causal_lm, ("lm_head",), _is_tied),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"(?:^|\.)h\.\d+\.attn\.(?:masked_)?bias$|^lm_head\.weight$",
    sharding_rules=SHARDING_RULES,
)
