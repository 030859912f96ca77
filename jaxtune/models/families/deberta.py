"""DeBERTa, versions 2 and 3: BERT's layers, whose attention keeps content and distance apart.

Sources: He et al. 2021, DeBERTa: Decoding-enhanced BERT with Disentangled Attention; He et al.
2023, DeBERTaV3: Improving DeBERTa using ELECTRA-Style Pre-Training with Gradient-Disentangled
Embedding Sharing.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.bound import bind
from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.families import bert
from jaxtune.models.families.bert import Layer, Output
from jaxtune.models.families.deberta_config import DebertaConfig, config_from_hf
from jaxtune.models.family import Family, Head, Matrices, layer_rules
from jaxtune.models.heads import output_layer, span_head, token_head
from jaxtune.models.hf_config import check_tied
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense, layer_norm, table
from jaxtune.models.model import Layers, Part
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.relative import (
    DisentangledAttention,
    DistanceEncoder,
    Related,
    by_distance,
)
from jaxtune.models.sight import Bias


class Embeddings(nn.Module):
    """Sum of word embeddings and what else there is, then LayerNorm and dropout."""

    config: DebertaConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the tables."""
        c = self.config
        make = partial(table, features=c.hidden_size, init=c.initializer_range, dtype=self.dtype)
        self.word_embeddings = make(c.vocab_size)
        if c.position_biased_input:
            self.position_embeddings = make(c.max_position_embeddings)
        if c.token_types:
            self.token_type_embeddings = make(c.token_types)
        self.norm = layer_norm(c.layer_norm_eps, self.dtype)
        self.dropout = Dropout(c.hidden_dropout_prob)

    def __call__(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """Looks up and adds; every index must be inside its table."""
        c, input_ids = self.config, batch["input_ids"]
        x = self.word_embeddings(input_ids)
        if c.position_biased_input:
            x = x + self.position_embeddings(c.positions(batch))
        if c.token_types:
            types = batch.get("token_type_ids", jnp.zeros_like(input_ids))
            x = x + self.token_type_embeddings(types)
        return self.dropout(self.norm(x), noise_ids)


class Attention(nn.Module):
    """Disentangled self-attention and its residual."""

    config: DebertaConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], seen: Related, noise_ids: NoiseIds, places: Places
    ) -> Float[Array, "b n d"]:
        """The first half of a layer."""
        c = self.config
        own = "" if c.share_att_key else "pos_"
        attention = DisentangledAttention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            projections=("query_proj", "key_proj", "value_proj"),
            distance_projections=(
                f"{own}key_proj" if "c2p" in c.terms else None,
                f"{own}query_proj" if "p2c" in c.terms else None,
            ),
            distance_dropout=c.hidden_dropout_prob,
            name="self",
        )
        attended = attention(x, seen, noise_ids, places)
        asking = pick_noise_ids(noise_ids, places)
        return Output(c, self.dtype, name="output")(attended, pick(x, places), asking)


class Encoder(nn.Module):
    """The layers, and the table of distances that they share."""

    config: DebertaConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the layers and the table."""
        c = self.config
        self.layer = Layers(partial(Layer, c, self.dtype, Attention), c.num_hidden_layers)
        self.rel_embeddings = table(2 * c.span, c.hidden_size, c.initializer_range)
        if c.has_norm:
            self.norm = layer_norm(c.layer_norm_eps, self.dtype)

    def __call__(
        self, x: Float[Array, "b t d"], part: Part, bias: Bias, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        c = self.config
        rows = self.rel_embeddings(jnp.arange(2 * c.span))
        rows = self.norm(rows) if c.has_norm else rows
        seen = Related(bias, rows, by_distance(c.rows(), x.shape[1]))
        return self.layer(x, part, seen, noise_ids)


class SequenceHead(nn.Module):
    """`dropout(act(dropout(x_0) W + b)) V + c` of the first token."""

    config: DebertaConfig
    num_outputs: int
    dtype: Any
    reads: str = "first"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        c = self.config
        inner = partial(dense, c.hidden_size, c.initializer_range, self.dtype)
        x = Nested(inner, "dense", name="pooler")(
            Dropout(c.pooler_dropout)(x, noise_ids), noise_ids
        )
        x = Dropout(c.sequence_dropout)(ACTIVATIONS[c.pooler_hidden_act](x), noise_ids)
        return output_layer(self.num_outputs, c.initializer_range, self.dtype)(x, noise_ids)


def _masked_lm(config: DebertaConfig, num_outputs: int, dtype: Any) -> Nested:
    del num_outputs
    check_tied(config, "DeBERTa")
    if not config.legacy:
        raise UserError(
            "config.json: legacy is False, which is not supported for language modelling: jaxtune's"
            " DeBERTa has the head that transformers has by default."
        )
    return Nested(bind(bert.Predictions, config, dtype), "cls/predictions")


NAMES = bert.NAMES._replace(
    below=r"(?:^|/)(?:embeddings|rel_embeddings|encoder/LayerNorm)/",
    matrices=Matrices(
        queries=r"attention/self/query_proj/kernel$",
        keys=r"attention/self/key_proj/kernel$",
        values=r"attention/self/value_proj/kernel$",
        attention_output=r"attention/output/dense/kernel$",
        feedforward_output=r"/\d+/output/dense/kernel$",
    ),
)

DEBERTA_V2 = Family(
    model_type="deberta-v2",
    prefix="deberta",
    backbone=partial(DistanceEncoder, Embeddings, Encoder),
    heads={
        "sequence": Head(
            "DebertaV2ForSequenceClassification", SequenceHead, ("pooler", "classifier")
        ),
        "token": Head("DebertaV2ForTokenClassification", token_head, ("classifier",)),
        "span": Head("DebertaV2ForQuestionAnswering", span_head, ("qa_outputs",)),
        "masked_lm": Head("DebertaV2ForMaskedLM", _masked_lm, ("cls/predictions",)),
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"embeddings[./]position_ids$|^cls\.predictions\.decoder\.",
    sharding_rules=(
        *layer_rules(
            "/self/(?:pos_)?(?:query|key|value)_proj",
            "intermediate/dense",
            r"/\d+/(?:attention/)?output/dense",
        ),
        *bert.SHARDING_RULES[-2:],
    ),
)
