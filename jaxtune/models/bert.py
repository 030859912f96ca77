"""BERT: a post-norm encoder with learned positions and token types, a pooler and a linear head.

Source: Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtune.errors import UserError, nearest
from jaxtune.models.layers import (
    ACTIVATIONS,
    DenseResidualNorm,
    SelfAttention,
    attention_bias,
    dense,
    layer_norm,
)
from jaxtune.types import Batch


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The fields of a Hugging Face BERT `config.json` that shape the computation."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    classifier_dropout: float | None = None


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> BertConfig:
    """Reads the fields of a `config.json`; absent ones have BERT's defaults.

    Args:
      hf_config: the parsed file.
      source: its path, for messages.

    Raises:
      UserError: a field of the wrong type, or a variant of BERT that is computed differently.
    """
    fields = {field.name: field for field in dataclasses.fields(BertConfig)}
    values = {name: hf_config[name] for name in fields if hf_config.get(name) is not None}
    for name, value in values.items():
        kind = fields[name].type
        wanted = str if kind is str else int if kind is int else (int, float)
        good = isinstance(value, wanted) and not isinstance(value, bool)
        if not good or (kind is int and int(value) < 1):
            expected = {str: "text", int: "a whole number from 1"}.get(kind, "a number")
            raise UserError(f"{source}: {name} is {value!r}, expected {expected}.")
    config = BertConfig(**values)
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{source}: hidden_act is {config.hidden_act!r}, expected one of"
            f" {', '.join(ACTIVATIONS)}.{nearest(config.hidden_act, ACTIVATIONS)}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{source}: hidden_size {config.hidden_size} is not a multiple of"
            f" num_attention_heads {config.num_attention_heads}."
        )
    position = hf_config.get("position_embedding_type", "absolute")
    if position not in (None, "absolute"):
        raise UserError(
            f"{source}: position_embedding_type {position!r} is not supported; jaxtune's BERT"
            " has absolute (learned) positions."
        )
    if hf_config.get("is_decoder") or hf_config.get("add_cross_attention"):
        raise UserError(f"{source}: BERT as a decoder is not supported; is_decoder must be false.")
    return config


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, then LayerNorm and dropout."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "b t"],
        token_type_ids: Int[Array, "b t"],
        position_ids: Int[Array, "b t"],
        train: bool,
    ) -> Float[Array, "b t d"]:
        """Looks up and adds; every index must be inside its table."""
        c = self.config

        def table(size: int, name: str) -> nn.Embed:
            init = nn.initializers.normal(c.initializer_range)
            return nn.Embed(size, c.hidden_size, embedding_init=init, name=name)

        x = table(c.vocab_size, "word_embeddings")(input_ids)
        x = x + table(c.max_position_embeddings, "position_embeddings")(position_ids)
        x = x + table(c.type_vocab_size, "token_type_embeddings")(token_type_ids)
        x = layer_norm(c.layer_norm_eps, self.dtype)(x)
        return nn.Dropout(c.hidden_dropout_prob)(x, deterministic=not train)


class Attention(nn.Module):
    """Self-attention and its residual."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Float[Array, "b 1 1 t"], train: bool
    ) -> Float[Array, "b t d"]:
        """The first half of a layer."""
        c = self.config
        attended = SelfAttention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            name="self",
        )(x, bias, train)
        return _residual(c, self.dtype)(attended, x, train)


class Intermediate(nn.Module):
    """The widening half of the feed-forward block."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
        """`act(x W + b)`."""
        c = self.config
        x = dense(c.intermediate_size, c.initializer_range, self.dtype, name="dense")(x)
        return ACTIVATIONS[c.hidden_act](x)


class Layer(nn.Module):
    """One encoder layer: attention, then the feed-forward block, each with its residual."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Float[Array, "b 1 1 t"], train: bool
    ) -> Float[Array, "b t d"]:
        """[b t d] -> [b t d]."""
        x = Attention(self.config, self.dtype, name="attention")(x, bias, train)
        wide = Intermediate(self.config, self.dtype, name="intermediate")(x)
        return _residual(self.config, self.dtype)(wide, x, train)


class LayerCollection(nn.Module):
    """The layers, named by their index."""

    config: BertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the layers `0`, `1`, and so on."""
        count = self.config.num_hidden_layers
        self.layers = [Layer(self.config, self.dtype, name=str(i)) for i in range(count)]

    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Float[Array, "b 1 1 t"],
        start: int,
        stop: int,
        train: bool,
    ) -> list[Float[Array, "b t d"]]:
        """The outputs of the layers `start` to `stop - 1`, each fed the one before."""
        outputs = []
        for layer in self.layers[start:stop]:
            x = layer(x, bias, train)
            outputs.append(x)
        return outputs


class Encoder(nn.Module):
    """Holds the layers under the name `layer`."""

    config: BertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the layers."""
        self.layer = LayerCollection(self.config, self.dtype)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Float[Array, "b 1 1 t"],
        start: int,
        stop: int,
        train: bool,
    ) -> list[Float[Array, "b t d"]]:
        """See `LayerCollection`."""
        return self.layer(x, bias, start, stop, train)


class Pooler(nn.Module):
    """`tanh(x_0 W + b)` of the first token."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        """[b t d] -> [b d]."""
        c = self.config
        first = dense(c.hidden_size, c.initializer_range, self.dtype, name="dense")(x[:, 0])
        return jnp.tanh(first)


class Bert(nn.Module):
    """The encoder in parts that can run alone: `embed`, `run_layers` and `pool`."""

    config: BertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        self.embeddings = Embeddings(self.config, self.dtype)
        self.encoder = Encoder(self.config, self.dtype)
        self.pooler = Pooler(self.config, self.dtype)

    def embed(self, batch: Batch, train: bool) -> Float[Array, "b t d"]:
        """The input of layer 0. `position_ids` count from 0 where the batch has none."""
        input_ids = batch["input_ids"]
        positions = batch.get("position_ids")
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(input_ids.shape[1]), input_ids.shape)
        return self.embeddings(input_ids, batch["token_type_ids"], positions, train)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, start: int, stop: int, train: bool
    ) -> list[Float[Array, "b t d"]]:
        """The outputs of the layers `start` to `stop - 1`."""
        return self.encoder(x, attention_bias(batch["attention_mask"]), start, stop, train)

    def pool(self, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        """The pooled first token."""
        return self.pooler(x)

    def hidden_states(self, batch: Batch, train: bool = False) -> list[Float[Array, "b t d"]]:
        """The embeddings and the output of every layer."""
        x = self.embed(batch, train)
        return [x, *self.run_layers(x, batch, 0, self.config.num_hidden_layers, train)]


class BertForSequenceClassification(nn.Module):
    """BERT with one linear layer on the pooled first token."""

    config: BertConfig
    num_outputs: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the encoder and the head."""
        c = self.config
        rate = c.classifier_dropout
        self.bert = Bert(c, self.dtype)
        self.dropout = nn.Dropout(c.hidden_dropout_prob if rate is None else rate)
        at_least_float32 = jnp.promote_types(self.dtype, jnp.float32)
        self.classifier = dense(self.num_outputs, c.initializer_range, at_least_float32, None)

    def embed(self, batch: Batch, train: bool = False) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.bert.embed(batch, train)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, start: int, stop: int, train: bool = False
    ) -> Float[Array, "b t d"]:
        """The output of layer `stop - 1` for the input `x` of layer `start`."""
        outputs = self.bert.run_layers(x, batch, start, stop, train)
        return outputs[-1] if outputs else x

    def head(self, x: Float[Array, "b t d"], train: bool = False) -> Float[Array, "b c"]:
        """Logits in float32 from the output of the last layer."""
        pooled = self.dropout(self.bert.pool(x), deterministic=not train)
        return self.classifier(pooled)

    def hidden_states(self, batch: Batch) -> list[Float[Array, "b t d"]]:
        """The embeddings and the output of every layer, without dropout."""
        return self.bert.hidden_states(batch)

    def __call__(self, batch: Batch, train: bool = False) -> Float[Array, "b c"]:
        """Logits in float32: embed, all layers, head.

        Args:
          batch: int32 `input_ids`, `attention_mask` and `token_type_ids`, all [b t]; other names
            are not read.
          train: whether dropout is on; then the `dropout` rng must be given.
        """
        x = self.embed(batch, train)
        x = self.run_layers(x, batch, 0, self.config.num_hidden_layers, train)
        return self.head(x, train)


def _residual(config: BertConfig, dtype: Any) -> DenseResidualNorm:
    return DenseResidualNorm(
        config.hidden_size,
        config.hidden_dropout_prob,
        config.layer_norm_eps,
        config.initializer_range,
        dtype,
        name="output",
    )
