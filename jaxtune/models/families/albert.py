"""ALBERT: an encoder whose layers share one set of parameters, on narrow embeddings.

Source: Lan et al. 2020, ALBERT: A Lite BERT for Self-supervised Learning of Language
Representations.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.bound import bind
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.attention import Seen, SelfAttention, attention_bias
from jaxtune.models.families import bert, bert_config
from jaxtune.models.families.bert import Embeddings, PooledHead
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.family import Family, Head, Matrices, Names, layer_rules
from jaxtune.models.heads import Transform, span_head, token_head
from jaxtune.models.hf_config import check_defaults, check_tied
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense, layer_norm
from jaxtune.models.model import Part
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.vocabulary import TiedLayer


@dataclasses.dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """The fields of a Hugging Face ALBERT `config.json` that shape the computation."""

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1

    @property
    def embedding_width(self) -> int:
        """The width of the embeddings."""
        return self.embedding_size

    @property
    def head_dropout(self) -> float:
        """The rate before the last layer of a classifier."""
        return self.classifier_dropout_prob


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> BertConfig:
    """See `Family`. All layers share their parameters, as in every published ALBERT."""
    check_defaults(hf_config, source, {"num_hidden_groups": 1, "inner_group_num": 1}, "ALBERT")
    return bert_config.config_from_hf(hf_config, source, AlbertConfig, "ALBERT")


class Attention(nn.Module):
    """Self-attention and its residual, all under one name."""

    config: AlbertConfig
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
            output="dense",
        )
        nn.share_scope(self, attention)
        attended = attention(x, bias, noise_ids, places)
        drop = Dropout(c.hidden_dropout_prob, name="output_dropout")
        y = drop(attended, pick_noise_ids(noise_ids, places))
        return layer_norm(c.layer_norm_eps, self.dtype)(pick(x, places) + y)


class Layer(nn.Module):
    """One encoder layer: attention, then the feed-forward block, each with its residual.

    There is no dropout at the end of the feed-forward block.
    """

    config: AlbertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Seen, noise_ids: NoiseIds, places: Places = None
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        c = self.config
        x = Attention(c, self.dtype, name="attention")(x, bias, noise_ids, places)
        noise_ids = pick_noise_ids(noise_ids, places)
        wide = dense(c.intermediate_size, c.initializer_range, self.dtype, "ffn")(x, noise_ids)
        wide = ACTIVATIONS[c.hidden_act](wide)  # [b n f]
        y = dense(c.hidden_size, c.initializer_range, self.dtype, "ffn_output")(wide, noise_ids)
        return layer_norm(c.layer_norm_eps, self.dtype, "full_layer_layer_norm")(x + y)


class Encoder(nn.Module):
    """One layer, run again and again; and the way up to its width from that of the embeddings."""

    config: AlbertConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the parts."""
        c = self.config
        init = c.initializer_range
        self.embedding_hidden_mapping_in = dense(c.hidden_size, init, self.dtype, name=None)
        make = partial(Layer, c, self.dtype)
        self.albert_layer_groups = Nested(make, "0/albert_layers/0")

    def widen(self, x: Float[Array, "b t e"], noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """[b t e] -> [b t d]."""
        return self.embedding_hidden_mapping_in(x, noise_ids)

    def __call__(
        self, x: Float[Array, "b t d"], part: Part, bias: Seen, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part, each fed the one before."""
        for i in range(part.start, part.stop):
            places = part.places if i == part.stop - 1 else None
            x = self.albert_layer_groups(x, bias, noise_ids, places)
        return x


class Albert(nn.Module):
    """The encoder in parts that can run alone, and the pooler of those heads that want it."""

    config: AlbertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        c = self.config
        self.embeddings = Embeddings(c, self.dtype)
        self.encoder = Encoder(c, self.dtype)
        self.pooler = dense(c.hidden_size, c.initializer_range, self.dtype, name=None)

    @property
    def num_layers(self) -> int:
        """Times that the layer runs."""
        return self.config.num_hidden_layers

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0. Token types are 0 where the batch has none."""
        input_ids = batch["input_ids"]
        types = batch.get("token_type_ids", jnp.zeros_like(input_ids))
        x = self.embeddings(input_ids, types, self.config.positions(batch), noise_ids)
        return self.encoder.widen(x, noise_ids)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        return self.encoder(x, part, attention_bias(batch), noise_ids)

    def pool(self, x: Float[Array, "b n d"], noise_ids: NoiseIds) -> Float[Array, "b n d"]:
        """`tanh(x W + b)` of the first token of each example."""
        return jnp.tanh(self.pooler(x, noise_ids))

    def word_table(self) -> nn.Embed:
        """The word embeddings, for a head that is tied to them."""
        return self.embeddings.word_embeddings


class Predictions(nn.Module):
    """The transformed token against every word embedding, and a bias for each word."""

    config: AlbertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: Albert, noise_ids: NoiseIds
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        c = self.config
        eps, init, features = c.layer_norm_eps, c.initializer_range, c.embedding_width
        transform = Transform(c.hidden_act, eps, init, self.dtype, features=features)
        nn.share_scope(self, transform)
        bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        table = backbone.word_table().embedding
        return TiedLayer(self.dtype)(transform(x, noise_ids), table, bias)


def _masked_lm(config: AlbertConfig, num_outputs: int, dtype: Any) -> Nested:
    del num_outputs
    check_tied(config, "ALBERT")
    return Nested(bind(Predictions, config, dtype), "predictions")


NAMES = Names(
    layers=r"(?:^|/)albert_layers/(\d+)/",
    below=r"(?:^|/)(?:embeddings|embedding_hidden_mapping_in)/",
    norms=r"(?:^|/)(?:LayerNorm|full_layer_layer_norm)/",
    matrices=Matrices(
        queries=r"attention/query/kernel$",
        keys=r"attention/key/kernel$",
        values=r"attention/value/kernel$",
        attention_output=r"attention/dense/kernel$",
        feedforward_output=r"/ffn_output/kernel$",
    ),
)

ALBERT = Family(
    model_type="albert",
    prefix="albert",
    backbone=Albert,
    heads={
        "sequence": Head(
            "AlbertForSequenceClassification", PooledHead, ("albert/pooler", "classifier")
        ),
        "token": Head("AlbertForTokenClassification", token_head, ("classifier",)),
        "span": Head("AlbertForQuestionAnswering", span_head, ("qa_outputs",)),
        "masked_lm": Head("AlbertForMaskedLM", _masked_lm, ("predictions",)),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"embeddings[./]position_ids$|^predictions[./]decoder[./]",
    sharding_rules=(
        *layer_rules("/attention/(?:query|key|value)", "/ffn", "/(?:attention/dense|ffn_output)"),
        (r"embeddings/embedding$", bert.SHARDING_RULES[-2][1]),
        (r"(?:^|/)(?:pooler|predictions/dense)/kernel$", bert.SHARDING_RULES[-1][1]),
    ),
)
