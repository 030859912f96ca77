"""DistilBERT: BERT's encoder without token types and pooler, under other names, and its heads.

Source: Sanh et al. 2019, DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
lighter.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.attention import Seen, SelfAttention, attention_bias
from jaxtune.models.family import Family, Head, Matrices, Names, layer_rules
from jaxtune.models.heads import (
    LinearHead,
    Transform,
    output_layer,
    token_head,
)
from jaxtune.models.hf_config import check_heads, check_tied, read_fields
from jaxtune.models.inputs import positions_of
from jaxtune.models.layers import Dropout, NoiseIds, dense, layer_norm, table
from jaxtune.models.model import Encoder, Part
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.vocabulary import TiedLayer, WordBias

LAYER_NORM_EPS = 1e-12
"""Of every LayerNorm; `config.json` does not say it."""

ALIASES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
"""BERT's names of fields, which transformers takes here too, before DistilBERT's own."""


@dataclasses.dataclass(frozen=True)
class DistilBertConfig:
    """The fields of a Hugging Face DistilBERT `config.json` that shape the computation."""

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    tie_word_embeddings: bool = True

    @property
    def max_length(self) -> int:
        """The most tokens of an example."""
        return self.max_position_embeddings

    @property
    def head_dropout(self) -> float:
        """The rate before the last layer of a classifier of tokens."""
        return self.dropout

    @property
    def type_vocab_size(self) -> int:
        """There are no token types, and none of a batch are read."""
        return 0


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> DistilBertConfig:
    """See `Family`."""
    config = read_fields(
        DistilBertConfig, hf_config, source, activation="activation", aliases=ALIASES
    )
    check_heads(config.dim, config.n_heads, source)
    return config


def sinusoids(
    key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None
) -> Float[Array, "t d"]:
    """Sines in the even columns and cosines in the odd ones, as an initializer of positions.

    Source: Vaswani et al. 2017, Attention Is All You Need, section 3.5.
    """
    del key, out_sharding
    positions, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    angles = positions / 10000 ** (2 * (columns // 2) / shape[1])  # [t d]
    return jnp.asarray(np.where(columns % 2 == 0, np.sin(angles), np.cos(angles)), dtype)


class Embeddings(nn.Module):
    """Sum of word and position embeddings, then LayerNorm and dropout."""

    config: DistilBertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the tables."""
        c = self.config
        self.word_embeddings = table(c.vocab_size, c.dim, c.initializer_range, dtype=self.dtype)
        init = sinusoids if c.sinusoidal_pos_embds else c.initializer_range
        self.position_embeddings = table(c.max_position_embeddings, c.dim, init)
        self.norm = layer_norm(LAYER_NORM_EPS, self.dtype)
        self.dropout = Dropout(c.dropout)

    def __call__(
        self, input_ids: Int[Array, "b t"], position_ids: Int[Array, "b t"], noise_ids: NoiseIds
    ) -> Float[Array, "b t d"]:
        """Looks up and adds; every index must be inside its table."""
        x = self.word_embeddings(input_ids) + self.position_embeddings(position_ids)
        return self.dropout(self.norm(x), noise_ids)


class FeedForward(nn.Module):
    """`dropout(act(x W + b) V + c)`."""

    config: DistilBertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """Widens to axis f, then [b t f] -> [b t d]."""
        c = self.config
        x = dense(c.hidden_dim, c.initializer_range, self.dtype, name="lin1")(x, noise_ids)
        x = ACTIVATIONS[c.activation](x)
        x = dense(c.dim, c.initializer_range, self.dtype, name="lin2")(x, noise_ids)
        return Dropout(c.dropout)(x, noise_ids)


class Layer(nn.Module):
    """One encoder layer: attention, then the feed-forward block, each with its residual.

    Unlike in BERT there is no dropout between attention and its residual.
    """

    config: DistilBertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Seen, noise_ids: NoiseIds, places: Places = None
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        c = self.config
        attended = SelfAttention(
            c.n_heads,
            c.attention_dropout,
            c.initializer_range,
            self.dtype,
            projections=("q_lin", "k_lin", "v_lin"),
            output="out_lin",
            name="attention",
        )(x, bias, noise_ids, places)
        x = layer_norm(LAYER_NORM_EPS, self.dtype, "sa_layer_norm")(pick(x, places) + attended)
        wide = FeedForward(c, self.dtype, name="ffn")(x, pick_noise_ids(noise_ids, places))
        return layer_norm(LAYER_NORM_EPS, self.dtype, "output_layer_norm")(x + wide)


class DistilBert(nn.Module):
    """The encoder in parts that can run alone."""

    config: DistilBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        self.embeddings = Embeddings(self.config, self.dtype)
        self.transformer = Encoder(partial(Layer, self.config, self.dtype), self.num_layers)

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return self.config.n_layers

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.embeddings(batch["input_ids"], positions_of(batch), noise_ids)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        return self.transformer(x, part, attention_bias(batch, dtype=self.dtype), noise_ids)

    def word_table(self) -> nn.Embed:
        """The word embeddings, for a head that is tied to them."""
        return self.embeddings.word_embeddings


class SequenceHead(nn.Module):
    """`dropout(relu(x_0 W + b)) V + c` of the first token."""

    config: DistilBertConfig
    num_outputs: int
    dtype: Any
    reads: str = "first"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: DistilBert, noise_ids: NoiseIds
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        c = self.config
        inner = dense(c.dim, c.initializer_range, self.dtype, name="pre_classifier")
        x = Dropout(c.seq_classif_dropout)(nn.relu(inner(x, noise_ids)), noise_ids)
        return output_layer(self.num_outputs, c.initializer_range, self.dtype)(x, noise_ids)


class MaskedLanguageHead(nn.Module):
    """The transformed token against every word embedding, and a bias for each word."""

    config: DistilBertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: DistilBert, noise_ids: NoiseIds
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        c = self.config
        transform = Transform(
            c.activation,
            LAYER_NORM_EPS,
            c.initializer_range,
            self.dtype,
            dense_name="vocab_transform",
            norm_name="vocab_layer_norm",
        )
        nn.share_scope(self, transform)
        bias = WordBias(c.vocab_size, name="vocab_projector")()
        table = backbone.word_table().embedding
        return TiedLayer(self.dtype)(transform(x, noise_ids), table, bias)


def _span(config: DistilBertConfig, num_outputs: int, dtype: Any) -> LinearHead:
    del num_outputs
    return LinearHead(2, config.initializer_range, dtype, config.qa_dropout, "qa_outputs")


def _masked_lm(config: DistilBertConfig, num_outputs: int, dtype: Any) -> MaskedLanguageHead:
    del num_outputs
    check_tied(config, "DistilBERT")
    return MaskedLanguageHead(config, dtype)


NAMES = Names(
    layers=r"(?:^|/)layer/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)(?:LayerNorm|\w+_layer_norm)/",
    matrices=Matrices(
        queries=r"attention/q_lin/kernel$",
        keys=r"attention/k_lin/kernel$",
        values=r"attention/v_lin/kernel$",
        attention_output=r"attention/out_lin/kernel$",
        feedforward_output=r"ffn/lin2/kernel$",
    ),
)

SHARDING_RULES = (
    *layer_rules(
        "/[qkv]_lin",
        "/lin1",
        "/(?:out_lin|lin2)",
    ),
    (r"embeddings/embedding$", P(None, "fsdp")),
    (r"^(?:pre_classifier|vocab_transform)/kernel$", P("fsdp", None)),
)

DISTILBERT = Family(
    model_type="distilbert",
    prefix="distilbert",
    backbone=DistilBert,
    heads={
        "sequence": Head(
            "DistilBertForSequenceClassification", SequenceHead, ("pre_classifier", "classifier")
        ),
        "token": Head("DistilBertForTokenClassification", token_head, ("classifier",)),
        "span": Head("DistilBertForQuestionAnswering", _span, ("qa_outputs",)),
        "masked_lm": Head(
            "DistilBertForMaskedLM",
            _masked_lm,
            ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
        ),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"embeddings[./]position_ids$|^vocab_projector[./](?:weight|kernel)$",
    sharding_rules=SHARDING_RULES,
)
