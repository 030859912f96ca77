"""The fields of a DeBERTa's `config.json`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtune.core.errors import UserError
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.families import bert_config
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.hf_config import check_defaults

_TERMS = ("c2p", "p2c")


@dataclasses.dataclass(frozen=True)
class DebertaConfig(BertConfig):
    """The fields of a Hugging Face DeBERTa-v2 `config.json` that shape the computation.

    Attributes:
      token_types: how many there are; BERT's name for it counts from 1.
      terms: of attention beside content with content: `c2p` content with distance, `p2c` distance
        with content.
    """

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    layer_norm_eps: float = 1e-7
    type_vocab_size: int = 1
    token_types: int = 0
    max_relative_positions: int = 512
    position_buckets: int | None = None
    position_biased_input: bool = True
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    pooler_dropout: float = 0.0
    pooler_hidden_act: str = "gelu"
    cls_dropout: float | None = None
    legacy: bool = True
    terms: tuple[str, ...] = ()

    @property
    def has_distances(self) -> bool:
        """Attention has scores by distance, which no kernel takes."""
        return True

    @property
    def span(self) -> int:
        """Half of the rows of the table of distances."""
        return self.position_buckets or self.max_relative_positions

    @property
    def has_norm(self) -> bool:
        """Whether the table of distances is normed."""
        return "layer_norm" in [part.strip() for part in self.norm_rel_ebd.lower().split("|")]

    @property
    def head_dropout(self) -> float:
        """The rate before the last layer of a classifier of tokens."""
        return self.hidden_dropout_prob

    @property
    def sequence_dropout(self) -> float:
        """The rate before the last layer of a classifier of texts."""
        return self.hidden_dropout_prob if self.cls_dropout is None else self.cls_dropout

    def rows(self) -> Int[np.ndarray, " m"]:
        """Of the table, for the distances `max_length - 1` to `1 - max_length`.

        Near ones have a row each; those from half of the buckets on share one with others, the more
        the farther: `sign(d) (ceil(log(|d| / m) / log((p - 1) / m) (m - 1)) + m)` for m half of the
        buckets and p positions.

        Source: He et al. 2021, DeBERTa, section 3.1; the logarithm is of its second version.
        """
        far = np.arange(self.max_length - 1, -self.max_length, -1)
        if self.position_buckets:
            mid, one = self.position_buckets // 2, np.float32(1)
            steps = np.log(one * np.maximum(np.abs(far), mid) / np.float32(mid))
            steps = steps / np.log(one * (self.max_relative_positions - 1) / np.float32(mid))
            wide = np.sign(far) * (np.ceil(steps * np.float32(mid - 1)) + mid)
            far = np.where(np.abs(far) <= mid, far, wide).astype(np.int32)
        return np.clip(far + self.span, 0, 2 * self.span - 1)


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> BertConfig:
    """See `Family`."""
    width = hf_config.get("hidden_size", DebertaConfig.hidden_size)
    defaults = {
        "relative_attention": True,
        "conv_kernel_size": 0,
        "embedding_size": width,
        "pooler_hidden_size": width,
    }
    check_defaults({"relative_attention": False, **hf_config}, source, defaults, "DeBERTa")
    fields = {**hf_config}
    for name in ("position_buckets", "max_relative_positions"):  # -1 is none
        if isinstance(fields.get(name), int) and fields[name] < 1:
            fields[name] = None
    types = fields.pop("type_vocab_size", 0) or 0
    if not isinstance(types, int) or isinstance(types, bool) or types < 0:
        raise UserError(f"{source}: type_vocab_size is {types!r:.80}, expected a number from 0.")
    positions = fields.get("max_position_embeddings") or DebertaConfig.max_position_embeddings
    fields.setdefault("max_relative_positions", None)
    if fields["max_relative_positions"] is None:
        fields["max_relative_positions"] = positions
    config = bert_config.config_from_hf(fields, source, DebertaConfig, "DeBERTa")
    assert isinstance(config, DebertaConfig)
    if config.pooler_hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{source}: pooler_hidden_act is {config.pooler_hidden_act!r:.80}, expected one of"
            f" {', '.join(ACTIVATIONS)}."
        )
    return dataclasses.replace(
        config,
        terms=_terms(hf_config.get("pos_att_type"), source),
        token_types=types,
        type_vocab_size=max(types, 1),
    )


def _terms(value: Any, source: str) -> tuple[str, ...]:
    """Of `pos_att_type`: a list, or words between bars."""
    words = value.lower().split("|") if isinstance(value, str) else value or []
    found = [word.strip() if isinstance(word, str) else word for word in words]
    if not isinstance(words, list) or any(word not in _TERMS for word in found):
        raise UserError(
            f"{source}: pos_att_type is {value!r:.80}, expected some of {' and '.join(_TERMS)}."
        )
    return tuple(dict.fromkeys(found))
