"""MPNet: BERT's encoder with scores by distance, the same in all layers, and RoBERTa's positions.

Source: Song et al. 2020, MPNet: Masked and Permuted Pre-training for Language Understanding.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtune.core.types import Batch
from jaxtune.models.families import bert, roberta
from jaxtune.models.families.bert import Layer
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.families.roberta import RobertaConfig
from jaxtune.models.family import Family, Matrices, layer_rules
from jaxtune.models.hf_config import check_defaults
from jaxtune.models.layers import Dropout, NoiseIds, layer_norm, table
from jaxtune.models.model import Layers, Part
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.relative import DistanceEncoder, RelativeAttention, by_distance, skew
from jaxtune.models.sight import Bias

_FARTHEST = 128
"""Distances from here on share the last bucket."""


@dataclasses.dataclass(frozen=True)
class MPNetConfig(RobertaConfig):
    """The fields of a Hugging Face MPNet `config.json` that shape the computation."""

    vocab_size: int = 30527
    type_vocab_size: int = 1
    relative_attention_num_buckets: int = 32

    @property
    def has_distances(self) -> bool:
        """Attention has scores by distance, which no kernel takes."""
        return True


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> BertConfig:
    """See `Family`. The row of padding is 1 whatever `pad_token_id` is, as transformers has it."""
    defaults = {"pad_token_id": 1, "relative_attention_num_buckets": 32}
    check_defaults(hf_config, source, defaults, "MPNet")
    return roberta.config_from_hf(hf_config, source, MPNetConfig, "MPNet")


def buckets(count: int, length: int) -> Int[np.ndarray, " m"]:
    """Of the distances `length - 1` to `1 - length` of a query from a key.

    Half of the buckets are for keys after the query. Of each half, half are for a distance each,
    and the others widen by its logarithm.

    Source: Raffel et al. 2020, Exploring the Limits of Transfer Learning, section 2.1.
    """
    distances = np.arange(length - 1, -length, -1)
    half, far = count // 2, np.abs(distances)
    exact = half // 2
    ratio = np.log(np.float32(np.maximum(far, 1)) / np.float32(exact))
    wide = ratio / np.float32(np.log(_FARTHEST / exact)) * np.float32(half - exact)
    bucket = np.where(far < exact, far, np.minimum(exact + wide.astype(np.int32), half - 1))
    return (bucket + half * (distances < 0)).astype(np.int32)


class Embeddings(nn.Module):
    """Sum of word and position embeddings, then LayerNorm and dropout."""

    config: MPNetConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the tables."""
        c = self.config
        self.word_embeddings = table(
            c.vocab_size, c.hidden_size, c.initializer_range, dtype=self.dtype
        )
        positions = c.max_position_embeddings
        self.position_embeddings = table(positions, c.hidden_size, c.initializer_range)
        self.norm = layer_norm(c.layer_norm_eps, self.dtype)
        self.dropout = Dropout(c.hidden_dropout_prob)

    def __call__(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """Looks up and adds; every index must be inside its table."""
        x = self.word_embeddings(batch["input_ids"])
        x = x + self.position_embeddings(self.config.positions(batch))
        return self.dropout(self.norm(x), noise_ids)


class Attention(nn.Module):
    """Self-attention and its residual."""

    config: MPNetConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Bias, noise_ids: NoiseIds, places: Places
    ) -> Float[Array, "b n d"]:
        """The first half of a layer."""
        c = self.config
        attended = RelativeAttention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            projections=("q", "k", "v"),
            output="o",
            name="attn",
        )(x, bias, noise_ids, places)
        y = Dropout(c.hidden_dropout_prob)(attended, pick_noise_ids(noise_ids, places))
        return layer_norm(c.layer_norm_eps, self.dtype)(pick(x, places) + y)


class Encoder(nn.Module):
    """The layers, and the scores that each adds to those of its own."""

    config: MPNetConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the layers and the table."""
        c = self.config
        make = partial(Layer, c, self.dtype, Attention)
        self.layer = Layers(make, c.num_hidden_layers)
        count = c.relative_attention_num_buckets
        self.relative_attention_bias = table(count, c.num_attention_heads, c.initializer_range)

    def __call__(
        self, x: Float[Array, "b t d"], part: Part, bias: Bias, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        c, t = self.config, x.shape[1]
        found = by_distance(buckets(c.relative_attention_num_buckets, c.max_length), t)
        scores = self.relative_attention_bias(found).T[:, None]  # [n h] -> [h 1 n]
        scores = skew(jnp.broadcast_to(scores, (scores.shape[0], t, scores.shape[2])))  # [h t t]
        return self.layer(x, part, bias + scores, noise_ids)


NAMES = bert.NAMES._replace(
    below=r"(?:^|/)(?:embeddings|relative_attention_bias)/",
    norms=r"(?:^|/)(?:LayerNorm|layer_norm)/",
    matrices=Matrices(
        queries=r"attention/attn/q/kernel$",
        keys=r"attention/attn/k/kernel$",
        values=r"attention/attn/v/kernel$",
        attention_output=r"attention/attn/o/kernel$",
        feedforward_output=r"/\d+/output/dense/kernel$",
    ),
)

MPNET = Family(
    model_type="mpnet",
    prefix="mpnet",
    backbone=partial(DistanceEncoder, Embeddings, Encoder),
    heads={
        name: head._replace(architecture=head.architecture.replace("Roberta", "MPNet"))
        for name, head in roberta.ROBERTA.heads.items()
    },
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"embeddings[./]position_ids$|^lm_head[./]decoder[./]",
    sharding_rules=(
        *layer_rules("/attn/[qkv]", "intermediate/dense", r"/attn/o|/\d+/output/dense"),
        *bert.SHARDING_RULES[-2:],
    ),
)
