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
from jaxtyping import Array, Float

from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.attention import Seen, SelfAttention, attention_bias
from jaxtune.models.families.modernbert_config import ModernBertConfig, config_from_hf
from jaxtune.models.family import Family, Head, Matrices, Names
from jaxtune.models.heads import Transform, mean_tokens, output_layer
from jaxtune.models.inputs import positions_of
from jaxtune.models.layers import Dropout, NoiseIds, dense, layer_norm, table
from jaxtune.models.model import Layers, Part
from jaxtune.models.noise_ids import noise_ids_of_examples
from jaxtune.models.norm import NarrowLayerNorm
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.rotary import Rotation, rotate, rotation
from jaxtune.models.vocabulary import TiedLayer, WordBias, own_layer
from jaxtune.parallel.collectives import split_features


class View(NamedTuple):
    """What the attention of one kind of layers knows of places.

    Attributes:
      bias: of the scores: which tokens are seen.
      turned: the rotary positions.
    """

    bias: Seen
    turned: Rotation


class Embeddings(nn.Module):
    """Word embeddings, then LayerNorm and dropout."""

    config: ModernBertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the table. What it gives starts the residual, whose sums are float32."""
        c = self.config
        init = _truncated_normal(c, c.initializer_range)
        self.tok_embeddings = table(c.vocab_size, c.hidden_size, init, dtype=self.dtype)
        at_least_float32 = jnp.promote_types(self.dtype, jnp.float32)
        self.norm = layer_norm(c.norm_eps, at_least_float32, None, c.norm_bias)
        self.dropout = Dropout(c.embedding_dropout)

    def __call__(self, input_ids: Array, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """Looks up; every index must be inside the table."""
        return self.dropout(self.norm(self.tok_embeddings(input_ids)), noise_ids)


class FeedForward(nn.Module):
    """`(act(u) * g) W_o` where `[u; g] = x W_i`.

    Source: Shazeer 2020, GLU Variants Improve Transformer, section 2.
    """

    config: ModernBertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """[b t d] -> [b t 2f] -> [b t f] -> [b t d]."""
        c = self.config
        first, last = (_truncated_normal(c, s) for s in (c.initializer_range, c.residual_range))
        both = dense(2 * c.intermediate_size, first, self.dtype, "Wi", c.mlp_bias)(x, noise_ids)
        inner, gate = split_features(both, 2)
        x = ACTIVATIONS[c.hidden_activation](inner) * gate
        x = Dropout(c.mlp_dropout)(x, noise_ids)
        return dense(c.hidden_size, last, self.dtype, "Wo", c.mlp_bias)(x, noise_ids)


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
        noise_ids: NoiseIds,
        places: Places = None,
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone, with one of the two views."""
        c = self.config
        view = everywhere if c.is_global(self.index) else nearby
        attention = SelfAttention(
            c.num_attention_heads,
            c.attention_dropout,
            _truncated_normal(c, c.initializer_range),
            self.dtype,
            projections=("Wqkv",),
            output="Wo",
            use_bias=c.attention_bias,
            output_init=_truncated_normal(c, c.residual_range),
            name="attn",
        )
        normed = x if self.index == 0 else _norm(c, self.dtype, "attn_norm")(x)
        turn = partial(rotate, by=view.turned)
        attended = attention(normed, view.bias, noise_ids, places, turn)
        noise_ids = pick_noise_ids(noise_ids, places)
        x = pick(x, places) + Dropout(c.attention_dropout)(attended, noise_ids)
        normed = _norm(c, self.dtype, "mlp_norm")(x)
        return x + FeedForward(c, self.dtype, name="mlp")(normed, noise_ids)


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

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.embeddings(batch["input_ids"], noise_ids)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        c = self.config
        turn = partial(rotation, positions_of(batch), c.head_size)
        everywhere = View(attention_bias(batch, dtype=self.dtype), turn(c.global_rope_theta))
        near = attention_bias(batch, window=c.local_attention // 2, dtype=self.dtype)
        nearby = View(near, turn(c.local_rope_theta))
        return self.layers(x, part, everywhere, nearby, noise_ids)

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
        self, x: Float[Array, "b t d"], batch: Batch, backbone: ModernBert, noise_ids: NoiseIds
    ) -> Float[Array, "b c"] | Float[Array, "b t c"]:
        """Logits of each example, or of each token."""
        c = self.config
        if self.pooling == "mean":
            rows, x = x.shape[0], mean_tokens(x, batch)
            if noise_ids is not None:
                noise_ids = noise_ids_of_examples(batch, rows).reshape(x.shape[:-1])
        x = _transform(c, self.dtype)(x, noise_ids)
        x = Dropout(c.classifier_dropout)(x, noise_ids)
        last = output_layer(self.num_outputs, _truncated_normal(c, c.hidden_size**-0.5), self.dtype)
        return last(x, noise_ids)


class MaskedLanguageHead(nn.Module):
    """Logits over the vocabulary, of each token."""

    config: ModernBertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: ModernBert, noise_ids: NoiseIds
    ) -> Float[Array, "b t v"]:
        """From the word embeddings, or from a matrix of its own."""
        c = self.config
        x = _transform(c, self.dtype)(x, noise_ids)
        if c.tie_word_embeddings:
            bias = WordBias(c.vocab_size, name="decoder")() if c.decoder_bias else None
            return TiedLayer(self.dtype)(x, backbone.word_table().embedding, bias)
        init = _truncated_normal(c, c.residual_range)
        last = own_layer(c.vocab_size, init, self.dtype, "decoder", c.decoder_bias)
        return last(x, noise_ids)


def _layer(config: ModernBertConfig, dtype: Any, name: str) -> Layer:
    return Layer(config, dtype, int(name), name=name)


def _norm(config: ModernBertConfig, dtype: Any, name: str | None) -> nn.LayerNorm | NarrowLayerNorm:
    return layer_norm(config.norm_eps, dtype, name, config.norm_bias)


def _transform(config: ModernBertConfig, dtype: Any) -> Transform:
    return Transform(
        config.classifier_activation,
        config.norm_eps,
        _truncated_normal(config, config.residual_range),
        dtype,
        norm_name="norm",
        use_bias=config.classifier_bias,
        norm_bias=config.norm_bias,
        name="head",
    )


def _truncated_normal(config: ModernBertConfig, s: float) -> jax.nn.initializers.Initializer:
    """N(0, s^2) without its tails, as transformers draws."""
    cutoff = config.initializer_cutoff_factor
    return jax.nn.initializers.truncated_normal(s, lower=-cutoff, upper=cutoff)


def sequence_head(config: ModernBertConfig, num_outputs: int, dtype: Any) -> ClassifierHead:
    """Of each example."""
    return ClassifierHead(config, num_outputs, dtype, config.classifier_pooling)


def _span(config: ModernBertConfig, num_outputs: int, dtype: Any) -> ClassifierHead:
    del num_outputs
    return ClassifierHead(config, 2, dtype)


def _masked_lm(config: ModernBertConfig, num_outputs: int, dtype: Any) -> MaskedLanguageHead:
    del num_outputs
    return MaskedLanguageHead(config, dtype)


def _is_tied(config: ModernBertConfig) -> bool:
    return config.tie_word_embeddings and not config.decoder_bias


NAMES = Names(
    layers=r"(?:^|/)layers/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)(?:(?:attn|mlp|final)_)?norm/",
    # one matrix gives queries, keys and values
    matrices=Matrices(
        *(r"/attn/Wqkv/kernel$",) * 3,
        attention_output=r"/attn/Wo/kernel$",
        feedforward_output=r"/mlp/Wo/kernel$",
    ),
)

# Wqkv and Wi hold several matrices side by side, which no cut of the whole would share out evenly.
SHARDING_RULES = (
    (r"/(?:Wqkv|Wi)/kernel$", P("fsdp", None)),
    (r"/Wo/kernel$", P("tensor", "fsdp")),
    (r"embeddings/embedding$", P(None, "fsdp")),
    (r"^head/dense/kernel$", P("fsdp", None)),
)

MODERNBERT = Family(
    model_type="modernbert",
    prefix="model",
    backbone=ModernBert,
    heads={
        "sequence": Head(
            "ModernBertForSequenceClassification", sequence_head, ("head", "classifier")
        ),
        "token": Head("ModernBertForTokenClassification", ClassifierHead, ("head", "classifier")),
        "span": Head("ModernBertForQuestionAnswering", _span, ("head", "classifier")),
        "masked_lm": Head("ModernBertForMaskedLM", _masked_lm, ("head", "decoder"), _is_tied),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"^decoder\.weight$",
    sharding_rules=SHARDING_RULES,
)
