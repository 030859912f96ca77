"""ELECTRA: BERT's encoder, trained to tell replaced tokens, on embeddings of a width of their own.

Source: Clark et al. 2020, ELECTRA: Pre-training Text Encoders as Discriminators.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxtune.core.bound import bind
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.families import bert, bert_config
from jaxtune.models.families.bert import Bert
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.family import Family, Head
from jaxtune.models.heads import Transform, output_layer, span_head, token_head
from jaxtune.models.hf_config import check_tied
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense
from jaxtune.models.vocabulary import TiedLayer, WordBias


@dataclasses.dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """The fields of a Hugging Face ELECTRA `config.json` that shape the computation."""

    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    embedding_size: int = 128

    @property
    def embedding_width(self) -> int:
        """The width of the embeddings."""
        return self.embedding_size


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> BertConfig:
    """See `Family`."""
    return bert_config.config_from_hf(hf_config, source, ElectraConfig, "ELECTRA")


class ClassificationHead(nn.Module):
    """`dropout(gelu(dropout(x_0) W + b)) V + c` of the first token."""

    config: BertConfig
    num_outputs: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Bert, noise_ids: NoiseIds
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        c = self.config
        dropout = Dropout(c.head_dropout)
        inner = dense(c.hidden_size, c.initializer_range, self.dtype, name="dense")
        outer = output_layer(self.num_outputs, c.initializer_range, self.dtype, "out_proj")
        x = ACTIVATIONS["gelu"](inner(dropout(x, noise_ids), noise_ids))
        return outer(dropout(x, noise_ids), noise_ids)


class MaskedLanguageHead(nn.Module):
    """The transformed token against every word embedding, and a bias for each word.

    The activation is gelu whatever `hidden_act` is.
    """

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: Bert, noise_ids: NoiseIds
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        c = self.config
        eps, init, features = c.layer_norm_eps, c.initializer_range, c.embedding_width
        transform = Transform(
            "gelu", eps, init, self.dtype, features=features, name="generator_predictions"
        )
        bias = WordBias(c.vocab_size, name="generator_lm_head")()
        table = backbone.word_table().embedding
        return TiedLayer(self.dtype)(transform(x, noise_ids), table, bias)


def _sequence(config: BertConfig, num_outputs: int, dtype: Any) -> Nested:
    head = bind(ClassificationHead, config, num_outputs, dtype)
    return Nested(head, "classifier", reads="first")  # under the name that the files give it


def _masked_lm(config: BertConfig, num_outputs: int, dtype: Any) -> MaskedLanguageHead:
    del num_outputs
    check_tied(config, "ELECTRA")
    return MaskedLanguageHead(config, dtype)


ELECTRA = Family(
    model_type="electra",
    prefix="electra",
    backbone=Bert,
    heads={
        "sequence": Head(
            "ElectraForSequenceClassification",
            _sequence,
            ("classifier/dense", "classifier/out_proj"),
        ),
        "token": Head("ElectraForTokenClassification", token_head, ("classifier",)),
        "span": Head("ElectraForQuestionAnswering", span_head, ("qa_outputs",)),
        "masked_lm": Head(
            "ElectraForMaskedLM", _masked_lm, ("generator_predictions", "generator_lm_head")
        ),
    },
    config_from_hf=config_from_hf,
    names=bert.NAMES._replace(below=r"(?:^|/)embeddings(?:_project)?/"),
    buffers=r"embeddings[./]position_ids$|^generator_lm_head[./](?:weight|kernel)$",
    sharding_rules=bert.SHARDING_RULES,
)
