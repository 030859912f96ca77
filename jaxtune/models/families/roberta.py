"""RoBERTa and XLM-RoBERTa: BERT's encoder with other positions, and heads of their own.

Sources: Liu et al. 2019, RoBERTa: A Robustly Optimized BERT Pretraining Approach; Conneau et al.
2020, Unsupervised Cross-lingual Representation Learning at Scale.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.families import bert, bert_config
from jaxtune.models.families.bert import Bert, span_head, token_head
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.family import Family, Head
from jaxtune.models.hf_config import check_tied
from jaxtune.models.layers import Dropout, dense
from jaxtune.models.model import Model, Transform, output_layer, tied_logits


@dataclasses.dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """The fields of a Hugging Face RoBERTa `config.json` that shape the computation."""

    vocab_size: int = 50265
    pad_token_id: int = 1

    @property
    def first_position(self) -> int:
        """The row after the one of padding, as fairseq counts."""
        return self.pad_token_id + 1


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> BertConfig:
    """Reads the fields of a `config.json`; absent ones have RoBERTa's defaults.

    Args:
      hf_config: the parsed file.
      source: its path, for messages.

    Raises:
      UserError: a field of the wrong type, a variant that is computed differently, or no position
        left for a token.
    """
    config = bert_config.config_from_hf(hf_config, source, RobertaConfig, "RoBERTa")
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
        self, x: Float[Array, "b n d"], tokens: UInt32[Array, "b n"] | None
    ) -> Float[Array, "b n c"]:
        """Logits of each example."""
        c = self.config
        x = Dropout(c.head_dropout)(x, tokens)
        inner = dense(c.hidden_size, c.initializer_range, self.dtype, name="dense")
        x = Dropout(c.head_dropout)(jnp.tanh(inner(x, tokens)), tokens)
        outer = output_layer(self.num_outputs, c.initializer_range, self.dtype, "out_proj")
        return outer(x, tokens)


class SequenceHead(nn.Module):
    """Holds `ClassificationHead` under the name that the files give it."""

    config: BertConfig
    num_outputs: int
    dtype: Any
    reads: str = "first"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        batch: Batch,
        backbone: Bert,
        tokens: UInt32[Array, "b n"] | None,
    ) -> Float[Array, "b n c"]:
        """See `ClassificationHead`."""
        del batch, backbone
        head = ClassificationHead(self.config, self.num_outputs, self.dtype, name="classifier")
        return head(x, tokens)


class Predictions(nn.Module):
    """The transformed token against every word embedding, and a bias for each word.

    The activation is gelu whatever `hidden_act` is.
    """

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], words: nn.Embed, tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        c = self.config
        transform = Transform(
            "gelu", c.layer_norm_eps, c.initializer_range, self.dtype, norm_name="layer_norm"
        )
        nn.share_scope(self, transform)
        bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        return tied_logits(transform(x, tokens), words, self.dtype) + bias


class MaskedLanguageHead(nn.Module):
    """Logits over the vocabulary, of each token."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        backbone: Bert,
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b t v"]:
        """See `Predictions`."""
        del batch
        predictions = Predictions(self.config, self.dtype, name="lm_head")
        return predictions(x, backbone.word_table(), tokens)


def _sequence(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    return _model(config, dtype, SequenceHead(config, num_outputs, dtype))


def _token(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    return _model(config, dtype, token_head(config, num_outputs, dtype))


def _span(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    return _model(config, dtype, span_head(config, dtype))


def _masked_lm(config: BertConfig, num_outputs: int, dtype: Any) -> Model:
    del num_outputs
    check_tied(config, "RoBERTa")
    return _model(config, dtype, MaskedLanguageHead(config, dtype))


def _model(config: BertConfig, dtype: Any, top: nn.Module) -> Model:
    return Model(partial(Bert, config, dtype), "roberta", top)


ROBERTA = Family(
    model_type="roberta",
    backbone="roberta",
    heads={
        "sequence": Head(
            "RobertaForSequenceClassification",
            _sequence,
            ("classifier/dense", "classifier/out_proj"),
        ),
        "token": Head("RobertaForTokenClassification", _token, ("classifier",)),
        "span": Head("RobertaForQuestionAnswering", _span, ("qa_outputs",)),
        "masked_lm": Head("RobertaForMaskedLM", _masked_lm, ("lm_head",)),
    },
    config_from_hf=config_from_hf,
    names=bert.NAMES._replace(norms=r"(?:^|/)(?:LayerNorm|layer_norm)/"),
    buffers=r"embeddings[./]position_ids$|^lm_head[./]decoder[./]",
    partition=bert.PARTITION,
)

XLM_ROBERTA = ROBERTA._replace(
    model_type="xlm-roberta",
    heads={
        name: head._replace(architecture=f"XLM{head.architecture}")
        for name, head in ROBERTA.heads.items()
    },
)
