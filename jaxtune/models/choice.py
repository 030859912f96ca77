"""The head of multiple choice: one score of each pair of a prompt and a choice.

It is the classifier that transformers has in its `ForMultipleChoice` classes, always of one output.
What compares the choices of a prompt is the loss: a model knows nothing of groups.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.families import albert, bert, deberta, distilbert, modernbert
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.family import Family, Head
from jaxtune.models.heads import output_layer
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense

CHOICE = "choice"
"""The name of the head among those of a family."""

_CLASS = "ForMultipleChoice"
_LAST_DROPOUT = 0.1
_SUMMARY: Mapping[str, Any] = {
    **{"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"},
    **{
        "summary_first_dropout": 0,
        "summary_proj_to_labels": False,
        "summary_last_dropout": _LAST_DROPOUT,
    },
}
"""What transformers takes where an ELECTRA's config.json says nothing."""


class SummaryHead(nn.Module):
    """`dropout(gelu(x_0 W + b)) v + c` of the first token, as ELECTRA has it."""

    config: BertConfig
    num_outputs: int
    dtype: Any
    reads: str = "first"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], batch: Batch, backbone: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b n c"]:
        """A score of each example."""
        c = self.config
        inner = partial(dense, c.hidden_size, c.initializer_range, self.dtype)
        x = Nested(inner, "summary", name="sequence_summary")(x, noise_ids)
        x = Dropout(_LAST_DROPOUT)(ACTIVATIONS["gelu"](x), noise_ids)
        return output_layer(self.num_outputs, c.initializer_range, self.dtype)(x, noise_ids)


def _pooled(config: BertConfig, num_outputs: int, dtype: Any) -> bert.PooledHead:
    """BERT's, with the dropout of all layers, as RoBERTa and MPNet have it here."""
    return bert.PooledHead(dataclasses.replace(config, classifier_dropout=None), num_outputs, dtype)


def _alone(make: Callable[..., nn.Module], config: Any, num_outputs: int, dtype: Any) -> nn.Module:
    """A head for texts with one output, whatever is asked for."""
    del num_outputs
    return make(config, 1, dtype)


def _head(name: str, make: Callable[..., nn.Module], *modules: str) -> Head:
    return Head(f"{name}{_CLASS}", partial(_alone, make), (*modules, "classifier"))


_HEADS: Mapping[str, Head] = {
    "bert": _head("Bert", bert.PooledHead, "bert/pooler"),
    "roberta": _head("Roberta", _pooled, "roberta/pooler"),
    "xlm-roberta": _head("XLMRoberta", _pooled, "roberta/pooler"),
    "distilbert": _head("DistilBert", distilbert.SequenceHead, "pre_classifier"),
    "electra": _head("Electra", SummaryHead, "sequence_summary"),
    "albert": _head("Albert", albert.PooledHead, "albert/pooler"),
    "mpnet": _head("MPNet", _pooled, "mpnet/pooler"),
    "deberta-v2": _head("DebertaV2", deberta.SequenceHead, "pooler"),
    "modernbert": _head("ModernBert", modernbert.sequence_head, "head"),
}
"""By `model_type`."""


def with_choice(family: Family) -> Family:
    """The family with the head of choices, where transformers has a class of it."""
    if family.model_type not in _HEADS:
        return family
    return family._replace(heads={**family.heads, CHOICE: _HEADS[family.model_type]})


def is_choice(hf_config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` says that its files have such a head."""
    return any(str(name).endswith(_CLASS) for name in hf_config.get("architectures") or ())


def check_choice(hf_config: Mapping[str, Any]) -> None:
    """Refuses a head that is computed differently.

    Args:
      hf_config: the parsed `config.json`.

    Raises:
      UserError: an ELECTRA whose summary is another one than its first token, transformed.
    """
    if hf_config.get("model_type") != "electra":
        return
    for name, usual in _SUMMARY.items():
        found = hf_config.get(name, usual)
        if found != usual:
            raise UserError(
                f"config.json: {name} is {repr(found)[:80]}, but jaxtune's head of choices for"
                f" ELECTRA has {usual!r}, as transformers has by default. Remove it."
            )
