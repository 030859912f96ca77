"""BERT: a post-norm encoder with learned positions and token types, and its heads.

RoBERTa and XLM-R are the same encoder with other positions and heads (`roberta.py`).

Source: Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxtune.core.bound import bind
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.attention import Seen, SelfAttention, attention_bias
from jaxtune.models.families.bert_config import BertConfig, config_from_hf
from jaxtune.models.family import Family, Head, Matrices, Names, layer_rules
from jaxtune.models.heads import Transform, output_layer, span_head, token_head
from jaxtune.models.hf_config import check_tied
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense, layer_norm, table
from jaxtune.models.model import Encoder, Part
from jaxtune.models.own_output import Ending, Widening, own_output, own_widening
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.vocabulary import TiedLayer


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, then LayerNorm and dropout."""

    config: BertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the tables."""
        c = self.config
        width, init = c.embedding_width, c.initializer_range
        self.word_embeddings = table(c.vocab_size, width, init, dtype=self.dtype)
        self.position_embeddings = table(c.max_position_embeddings, width, init)
        self.token_type_embeddings = table(c.type_vocab_size, width, init)
        self.norm = layer_norm(c.layer_norm_eps, self.dtype)
        self.dropout = Dropout(c.hidden_dropout_prob)

    def __call__(
        self,
        input_ids: Int[Array, "b t"],
        token_type_ids: Int[Array, "b t"],
        position_ids: Int[Array, "b t"],
        noise_ids: NoiseIds,
    ) -> Float[Array, "b t d"]:
        """Looks up and adds; every index must be inside its table."""
        x = self.word_embeddings(input_ids)
        x = x + self.position_embeddings(position_ids)
        x = x + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.norm(x), noise_ids)


class Output(nn.Module):
    """`LayerNorm(residual + dropout(activation(x) W + b))`, the end of both halves of a layer."""

    config: BertConfig
    dtype: Any
    activation: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t f"] | Widening,
        residual: Float[Array, "b t d"],
        noise_ids: NoiseIds,
    ) -> Float[Array, "b t d"]:
        """[b t f] -> [b t d]; see `own_output` for a `Widening`."""
        c, dropout = self.config, Dropout(self.config.hidden_dropout_prob)
        ending = Ending(dropout, c.layer_norm_eps, self.dtype, self.activation)
        found = own_output(self, x, residual, noise_ids, ending)
        if found is not None:
            return found
        assert not isinstance(x, Widening)
        x = x if self.activation is None else ACTIVATIONS[self.activation](x)
        y = dense(c.hidden_size, c.initializer_range, self.dtype, "dense")(x, noise_ids)
        return layer_norm(c.layer_norm_eps, self.dtype)(residual + dropout(y, noise_ids))


class Attention(nn.Module):
    """Self-attention and its residual."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Seen, noise_ids: NoiseIds, places: Places
    ) -> Float[Array, "b n d"]:
        """The first half of a layer."""
        c = self.config
        attention = SelfAttention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            name="self",
        )
        attended = attention(x, bias, noise_ids, places)
        asking = pick_noise_ids(noise_ids, places)
        return Output(c, self.dtype, name="output")(attended, pick(x, places), asking)


class Layer(nn.Module):
    """One encoder layer: attention, then the feed-forward block, each with its residual.

    Attributes:
      make_attention: takes a config, a dtype and `name`; gives a module that is called as
        `Attention` is.
    """

    config: BertConfig
    dtype: Any
    make_attention: Callable[..., Any] = Attention

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Any, noise_ids: NoiseIds, places: Places = None
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        c = self.config
        x = self.make_attention(c, self.dtype, name="attention")(x, bias, noise_ids, places)
        noise_ids = pick_noise_ids(noise_ids, places)
        wide: Any = own_widening(self, x, self.dtype, c.hidden_act)
        if wide is None:
            widen = partial(dense, c.intermediate_size, c.initializer_range, self.dtype)
            wide = Nested(widen, "dense", name="intermediate")(x, noise_ids)  # [b t d] -> [b t f]
        return Output(c, self.dtype, c.hidden_act, name="output")(wide, x, noise_ids)


class Bert(nn.Module):
    """The encoder in parts that can run alone, and the pooler of those heads that want it."""

    config: BertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        c = self.config
        self.embeddings = Embeddings(c, self.dtype)
        if c.embedding_width != c.hidden_size:
            init = c.initializer_range
            self.embeddings_project = dense(c.hidden_size, init, self.dtype, name=None)
        self.encoder = Encoder(partial(Layer, c, self.dtype), c.num_hidden_layers)
        pool = partial(dense, c.hidden_size, c.initializer_range, self.dtype)
        self.pooler = Nested(pool, "dense")

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return self.config.num_hidden_layers

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0. Token types are 0 where the batch has none."""
        input_ids = batch["input_ids"]
        types = batch.get("token_type_ids", jnp.zeros_like(input_ids))
        positions = self.config.positions(batch)
        x = self.embeddings(input_ids, types, positions, noise_ids)
        if self.config.embedding_width != self.config.hidden_size:
            x = self.embeddings_project(x, noise_ids)
        return x

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        return self.encoder(x, part, attention_bias(batch, dtype=self.dtype), noise_ids)

    def pool(self, x: Float[Array, "b n d"], noise_ids: NoiseIds) -> Float[Array, "b n d"]:
        """`tanh(x W + b)` of the first token of each example."""
        return jnp.tanh(self.pooler(x, noise_ids))

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
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Bert, noise_ids: NoiseIds
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        c = self.config
        pooled = Dropout(c.head_dropout)(backbone.pool(x, noise_ids), noise_ids)
        return output_layer(self.num_outputs, c.initializer_range, self.dtype)(pooled, noise_ids)


class Predictions(nn.Module):
    """The transformed token against every word embedding, and a bias for each word."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: Bert, noise_ids: NoiseIds
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        c = self.config
        transform = Transform(
            c.hidden_act, c.layer_norm_eps, c.initializer_range, self.dtype, name="transform"
        )
        bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        table = backbone.word_table().embedding
        return TiedLayer(self.dtype)(transform(x, noise_ids), table, bias)


def _masked_lm(config: BertConfig, num_outputs: int, dtype: Any) -> Nested:
    del num_outputs
    check_tied(config, "BERT")
    return Nested(bind(Predictions, config, dtype), "cls/predictions")


NAMES = Names(
    layers=r"(?:^|/)layer/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)LayerNorm/",
    matrices=Matrices(
        queries=r"attention/self/query/kernel$",
        keys=r"attention/self/key/kernel$",
        values=r"attention/self/value/kernel$",
        attention_output=r"attention/output/dense/kernel$",
        feedforward_output=r"/\d+/output/dense/kernel$",
    ),
)

SHARDING_RULES = (
    *layer_rules(
        "/self/(?:query|key|value)",
        "intermediate/dense",
        r"/\d+/(?:attention/)?output/dense",
    ),
    (r"embeddings/embedding$", P(None, "fsdp")),
    (r"(?:pooler|transform|classifier|lm_head)/dense/kernel$", P("fsdp", None)),
)

BERT = Family(
    model_type="bert",
    prefix="bert",
    backbone=Bert,
    heads={
        "sequence": Head(
            "BertForSequenceClassification", PooledHead, ("bert/pooler", "classifier")
        ),
        "token": Head("BertForTokenClassification", token_head, ("classifier",)),
        "span": Head("BertForQuestionAnswering", span_head, ("qa_outputs",)),
        "masked_lm": Head("BertForMaskedLM", _masked_lm, ("cls/predictions",)),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"embeddings[./]position_ids$|^cls\.predictions\.decoder\.",
    sharding_rules=SHARDING_RULES,
)
