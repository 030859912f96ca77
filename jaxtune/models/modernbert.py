"""ModernBERT: a pre-norm encoder with rotary positions and local attention, and its heads.

It has no token types: `token_type_ids` of a batch are not read.

Source: Warner et al. 2024, Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder,
section 2.1.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.errors import UserError
from jaxtune.models.family import Family, Head, Names
from jaxtune.models.hf_config import check_defaults, check_heads, read_fields
from jaxtune.models.layers import (
    ACTIVATIONS,
    SelfAttention,
    attention_bias,
    dense,
    layer_norm,
    positions_of,
    table,
)
from jaxtune.models.model import (
    Layers,
    Model,
    NormedModel,
    Transform,
    output_layer,
    tied_logits,
)
from jaxtune.models.rotary import Rotation, rotate, rotation
from jaxtune.types import Batch

_THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
"""The kinds of layers, as `layer_types` spells them, and the field that has the theta of each."""


@dataclasses.dataclass(frozen=True)
class ModernBertConfig:
    """The fields of a Hugging Face ModernBERT `config.json` that shape the computation.

    Attributes:
      local_attention: tokens that a token of a local layer sees: half of them on either side.
      global_layers: their places, where `layer_types` gives them; None for every
        `global_attn_every_n_layers`th layer, from the first.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    attention_dropout: float = 0.0
    global_attn_every_n_layers: int = 3
    global_layers: tuple | None = None
    local_attention: int = 128
    global_rope_theta: float = 160000.0
    local_rope_theta: float = 10000.0
    embedding_dropout: float = 0.0
    mlp_bias: bool = False
    mlp_dropout: float = 0.0
    tie_word_embeddings: bool = True
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    classifier_bias: bool = False
    classifier_activation: str = "gelu"

    @property
    def max_length(self) -> int:
        """The most tokens of an example."""
        return self.max_position_embeddings

    @property
    def type_vocab_size(self) -> int:
        """There are no token types, and none of a batch are read."""
        return 0

    @property
    def head_size(self) -> int:
        """Features of one head of attention."""
        return self.hidden_size // self.num_attention_heads

    @property
    def residual_range(self) -> float:
        """The initial spread of the matrices that add to the residual, two in each layer."""
        return self.initializer_range / (2 * self.num_hidden_layers) ** 0.5

    def is_global(self, index: int) -> bool:
        """Whether the tokens of a layer see all others."""
        if self.global_layers is None:
            return index % self.global_attn_every_n_layers == 0
        return index in self.global_layers


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> ModernBertConfig:
    """Reads the fields of a `config.json`; absent ones have ModernBERT's defaults.

    Args:
      hf_config: the parsed file, as transformers 5 writes it (`rope_parameters`, `layer_types`) or
        as 4 did (`global_rope_theta`, `local_rope_theta`, `global_attn_every_n_layers`).
      source: its path, for messages.

    Raises:
      UserError: a field of the wrong type, or a variant of ModernBERT that is computed differently.
    """
    config = read_fields(ModernBertConfig, hf_config, source, activation="hidden_activation")
    check_heads(config.hidden_size, config.num_attention_heads, source)
    derived = {
        "head_dim": config.head_size,
        "sliding_window": config.local_attention // 2,
        "rope_scaling": None,
    }
    check_defaults(hf_config, source, derived, "ModernBERT")
    if config.head_size % 2:
        raise UserError(
            f"{source}: heads of attention of {config.head_size} features are not supported:"
            " rotary positions turn pairs, so expected an even number."
        )
    for name, known in (
        ("classifier_pooling", ("cls", "mean")),
        ("classifier_activation", ACTIVATIONS),
    ):
        if getattr(config, name) not in known:
            raise UserError(
                f"{source}: {name} is {getattr(config, name)!r}, expected one of"
                f" {', '.join(known)}."
            )
    places = _global_layers(hf_config, config, source)
    return dataclasses.replace(
        config, global_layers=places, **_rope_thetas(hf_config, config, source)
    )


def _global_layers(
    hf_config: Mapping[str, Any], config: ModernBertConfig, source: str
) -> tuple[int, ...] | None:
    """The places of the global layers in `layer_types`, None where there is none."""
    kinds, count = hf_config.get("layer_types"), config.num_hidden_layers
    if kinds is None:
        return None
    if not isinstance(kinds, list) or len(kinds) != count or any(k not in _THETAS for k in kinds):
        raise UserError(
            f"{source}: layer_types is {kinds!r}, expected a list of {count} (num_hidden_layers),"
            f" each one of {', '.join(_THETAS)}."
        )
    return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")


def _rope_thetas(
    hf_config: Mapping[str, Any], config: ModernBertConfig, source: str
) -> dict[str, float]:
    """The thetas by field; `rope_parameters` goes before the older spelling, which `config` has."""
    thetas = {field: getattr(config, field) for field in _THETAS.values()}
    if hf_config.get("local_rope_theta", 0) is None:  # in transformers 4: as the global one
        thetas["local_rope_theta"] = thetas["global_rope_theta"]
    rope = hf_config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or not set(rope) <= set(_THETAS):
        raise UserError(
            f"{source}: rope_parameters is {rope!r}, expected an object for each of"
            f" {', '.join(_THETAS)}."
        )
    for kind, field in _THETAS.items():
        own = rope.get(kind) or {}
        where = f"{source}: rope_parameters: {kind}"
        if not isinstance(own, dict):
            raise UserError(f"{where} is {own!r}, expected an object.")
        check_defaults(own, where, {"rope_type": "default", "type": "default"}, "ModernBERT")
        theta = own.get("rope_theta", thetas[field])
        if isinstance(theta, bool) or not isinstance(theta, (int, float)) or theta <= 0:
            raise UserError(
                f"{source}: rope_theta of {kind} ({field}) is {theta!r}, expected a number above 0."
            )
        thetas[field] = float(theta)
    return thetas


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
        self.dropout = nn.Dropout(c.embedding_dropout)

    def __call__(self, input_ids: Array, train: bool) -> Float[Array, "b t d"]:
        """Looks up; every index must be inside the table."""
        return self.dropout(self.norm(self.tok_embeddings(input_ids)), deterministic=not train)


class FeedForward(nn.Module):
    """`(act(u) * g) W_o` where `[u; g] = x W_i`.

    Source: Shazeer 2020, GLU Variants Improve Transformer, section 2.
    """

    config: ModernBertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], train: bool) -> Float[Array, "b t d"]:
        """[b t d] -> [b t 2f] -> [b t f] -> [b t d]."""
        c = self.config
        spread, last_spread = _drawn(c, c.initializer_range), _drawn(c, c.residual_range)
        both = dense(2 * c.intermediate_size, spread, self.dtype, "Wi", c.mlp_bias)(x)
        inner, gate = jnp.split(both, 2, axis=-1)
        x = ACTIVATIONS[c.hidden_activation](inner) * gate
        x = nn.Dropout(c.mlp_dropout)(x, deterministic=not train)
        return dense(c.hidden_size, last_spread, self.dtype, "Wo", c.mlp_bias)(x)


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
        self, x: Float[Array, "b t d"], everywhere: View, nearby: View, train: bool
    ) -> Float[Array, "b t d"]:
        """[b t d] -> [b t d], with one of the two views."""
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
        attended = attention(normed, view.bias, train, partial(rotate, by=view.turned))
        x = x + nn.Dropout(c.attention_dropout)(attended, deterministic=not train)
        normed = _norm(c, self.dtype, "mlp_norm")(x)
        return x + FeedForward(c, self.dtype, name="mlp")(normed, train)


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

    def embed(self, batch: Batch, train: bool) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.embeddings(batch["input_ids"], train)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, start: int, stop: int, train: bool
    ) -> Float[Array, "b t d"]:
        """The output of layer `stop - 1`."""
        c = self.config
        turn = partial(rotation, positions_of(batch), c.head_size)
        everywhere = View(attention_bias(batch), turn(c.global_rope_theta))
        near = attention_bias(batch, window=c.local_attention // 2)
        nearby = View(near, turn(c.local_rope_theta))
        return self.layers(x, start, stop, everywhere, nearby, train)

    def normalise(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
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

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: ModernBert, train: bool
    ) -> Float[Array, "b c"] | Float[Array, "b t c"]:
        """Logits of each example, or of each token."""
        del backbone
        c = self.config
        if self.pooling == "cls":
            x = x[:, 0]
        elif self.pooling == "mean":
            mask = batch["attention_mask"][..., None].astype(jnp.float32)  # [b t 1]
            x = (x * mask).sum(1) / mask.sum(1)  # [b t d] -> [b d]
        x = _transform(c, self.dtype)(x)
        x = nn.Dropout(c.classifier_dropout)(x, deterministic=not train)
        return output_layer(self.num_outputs, _drawn(c, c.hidden_size**-0.5), self.dtype)(x)


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
        self, x: Float[Array, "b t d"], batch: Batch, backbone: ModernBert, train: bool
    ) -> Float[Array, "b t v"]:
        """From the word embeddings, or from a matrix of its own."""
        del batch, train
        c = self.config
        x = _transform(c, self.dtype)(x)
        if c.tie_word_embeddings and c.decoder_bias:
            return Decoder(c, self.dtype, name="decoder")(x, backbone.word_table())
        if c.tie_word_embeddings:
            return tied_logits(x, backbone.word_table(), self.dtype)
        spread = _drawn(c, c.residual_range)
        return output_layer(c.vocab_size, spread, self.dtype, "decoder", c.decoder_bias)(x)


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
)
