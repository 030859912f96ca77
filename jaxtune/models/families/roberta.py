"""RoBERTa and XLM-RoBERTa: BERT's encoder with other positions, and heads of their own.

Sources: Liu et al. 2019, RoBERTa: A Robustly Optimized BERT Pretraining Approach; Conneau et al.
2020, Unsupervised Cross-lingual Representation Learning at Scale.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtune.core.bound import bind
from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.families import bert, bert_config
from jaxtune.models.families.bert import Bert
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.family import Family, Head
from jaxtune.models.heads import Transform, output_layer, span_head, token_head
from jaxtune.models.hf_config import check_tied
from jaxtune.models.inputs import positions_of
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense
from jaxtune.models.vocabulary import TiedLayer


@dataclasses.dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """The fields of a Hugging Face RoBERTa `config.json` that shape the computation."""

    vocab_size: int = 50265
    pad_token_id: int = 1

    @property
    def first_position(self) -> int:
        """The row after the one of padding, as fairseq counts."""
        return self.pad_token_id + 1

    def positions(self, batch: Batch) -> Int[Array, "b t"]:
        """Counted from there; a token of padding has a row of its own, and counts as none.

        One may stand in a text: written out, it is what the tokenizer makes of it.
        """
        plain, padding = positions_of(batch), batch["input_ids"] == self.pad_token_id
        before = jnp.cumsum(padding, axis=1) - padding  # in the row, [b t]
        before -= jax.lax.cummax(jnp.where(plain == 0, before, 0), axis=1)  # in the example
        return jnp.where(padding, self.pad_token_id, plain - before + self.first_position)


def config_from_hf(
    hf_config: Mapping[str, Any],
    source: str,
    kind: type[RobertaConfig] = RobertaConfig,
    family: str = "RoBERTa",
) -> BertConfig:
    """See `Family` and `bert_config`. Some position must be left for a token."""
    config = bert_config.config_from_hf(hf_config, source, kind, family)
    if config.max_length < 1:
        raise UserError(
            f"{source}: max_position_embeddings is {config.max_position_embeddings}, but the first"
            f" token has position {config.first_position}, pad_token_id + 1: expected more."
        )
    return config


class ClassificationHead(nn.Module):
    """`dropout(tanh(dropout(x_0) W + b)) V + c` of the first token."""

    config: BertConfig
    num_outputs: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Bert, noise_ids: NoiseIds
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        c = self.config
        x = Dropout(c.head_dropout)(x, noise_ids)
        inner = dense(c.hidden_size, c.initializer_range, self.dtype, name="dense")
        x = Dropout(c.head_dropout)(jnp.tanh(inner(x, noise_ids)), noise_ids)
        outer = output_layer(self.num_outputs, c.initializer_range, self.dtype, "out_proj")
        return outer(x, noise_ids)


class Predictions(nn.Module):
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
        transform = Transform(
            "gelu", c.layer_norm_eps, c.initializer_range, self.dtype, norm_name="layer_norm"
        )
        nn.share_scope(self, transform)
        bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        table = backbone.word_table().embedding
        return TiedLayer(self.dtype)(transform(x, noise_ids), table, bias)


def _sequence(config: BertConfig, num_outputs: int, dtype: Any) -> Nested:
    head = bind(ClassificationHead, config, num_outputs, dtype)
    return Nested(head, "classifier", reads="first")


def _masked_lm(config: BertConfig, num_outputs: int, dtype: Any) -> Nested:
    del num_outputs
    check_tied(config, "RoBERTa")
    return Nested(bind(Predictions, config, dtype), "lm_head")


ROBERTA = Family(
    model_type="roberta",
    prefix="roberta",
    backbone=Bert,
    heads={
        "sequence": Head(
            "RobertaForSequenceClassification",
            _sequence,
            ("classifier/dense", "classifier/out_proj"),
        ),
        "token": Head("RobertaForTokenClassification", token_head, ("classifier",)),
        "span": Head("RobertaForQuestionAnswering", span_head, ("qa_outputs",)),
        "masked_lm": Head("RobertaForMaskedLM", _masked_lm, ("lm_head",)),
    },
    config_from_hf=config_from_hf,
    names=bert.NAMES._replace(norms=r"(?:^|/)(?:LayerNorm|layer_norm)/"),
    buffers=r"embeddings[./]position_ids$|^lm_head[./]decoder[./]",
    sharding_rules=bert.SHARDING_RULES,
)

XLM_ROBERTA = ROBERTA._replace(
    model_type="xlm-roberta",
    heads={
        name: head._replace(architecture=f"XLM{head.architecture}")
        for name, head in ROBERTA.heads.items()
    },
)
