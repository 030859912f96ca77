"""The fields of a BERT's `config.json`, which RoBERTa's and XLM-R's share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Int

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.hf_config import check_heads, read_fields
from jaxtune.models.inputs import positions_of


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
    tie_word_embeddings: bool = True

    @property
    def embedding_width(self) -> int:
        """The width of the embeddings."""
        return self.hidden_size

    @property
    def max_length(self) -> int:
        """The most tokens of an example."""
        return self.max_position_embeddings - self.first_position

    @property
    def first_position(self) -> int:
        """The row of the position table for the first token."""
        return 0

    def positions(self, batch: Batch) -> Int[Array, "b t"]:
        """The row of the position table for each token."""
        return positions_of(batch)

    @property
    def head_dropout(self) -> float:
        """The rate before the last layer of a classifier."""
        rate = self.classifier_dropout
        return self.hidden_dropout_prob if rate is None else rate


def config_from_hf(
    hf_config: Mapping[str, Any],
    source: str,
    kind: type[BertConfig] = BertConfig,
    family: str = "BERT",
) -> BertConfig:
    """See `Family`.

    Args:
      hf_config: the parsed file.
      source: its path, for messages.
      kind: the dataclass to fill.
      family: as a person calls it, for messages.
    """
    config = read_fields(kind, hf_config, source, activation="hidden_act")
    check_heads(config.hidden_size, config.num_attention_heads, source)
    position = hf_config.get("position_embedding_type", "absolute")
    if position not in (None, "absolute"):
        raise UserError(
            f"{source}: position_embedding_type {position!r} is not supported; jaxtune's"
            f" {family} has absolute (learned) positions."
        )
    if hf_config.get("is_decoder") or hf_config.get("add_cross_attention"):
        raise UserError(
            f"{source}: {family} as a decoder is not supported; is_decoder must be false."
        )
    return config
