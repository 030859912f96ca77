"""ModernBERT's `config.json`: its fields, in the spellings of transformers 4 and 5."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.hf_config import check_defaults, check_heads, read_fields

_THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
"""The kinds of layers, as `layer_types` spells them, and the field that has the theta of each."""

_MOST_THETA = 1e30


@dataclasses.dataclass(frozen=True)
class ModernBertConfig:
    """The fields of a Hugging Face ModernBERT `config.json` that shape the computation.

    Attributes:
      local_attention: tokens that a token of a local layer sees: half of them on either side.
      global_layers: their places, where `layer_types` gives them; None for every
        `global_attn_every_n_layers`th layer, from the first.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    attention_dropout: float = 0.0
    global_attn_every_n_layers: int = 3
    global_layers: tuple | None = None
    local_attention: int = 128
    global_rope_theta: float = 160000.0
    local_rope_theta: float = 10000.0
    embedding_dropout: float = 0.0
    mlp_bias: bool = False
    mlp_dropout: float = 0.0
    tie_word_embeddings: bool = True
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    classifier_bias: bool = False
    classifier_activation: str = "gelu"

    @property
    def max_length(self) -> int:
        """The most tokens of an example."""
        return self.max_position_embeddings

    @property
    def type_vocab_size(self) -> int:
        """There are no token types, and none of a batch are read."""
        return 0

    @property
    def head_size(self) -> int:
        """Features of one head of attention."""
        return self.hidden_size // self.num_attention_heads

    @property
    def residual_range(self) -> float:
        """As `initializer_range`, of the matrices that add to the residual, two in each layer."""
        return self.initializer_range / (2 * self.num_hidden_layers) ** 0.5

    def is_global(self, index: int) -> bool:
        """Whether the tokens of a layer see all others."""
        if self.global_layers is None:
            return index % self.global_attn_every_n_layers == 0
        return index in self.global_layers


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> ModernBertConfig:
    """See `Family`.

    Reads the file as transformers 5 writes it (`rope_parameters`, `layer_types`) or as 4 did
    (`global_rope_theta`, `local_rope_theta`, `global_attn_every_n_layers`).
    """
    config = read_fields(ModernBertConfig, hf_config, source, activation="hidden_activation")
    check_heads(config.hidden_size, config.num_attention_heads, source)
    derived = {
        "head_dim": config.head_size,
        "sliding_window": config.local_attention // 2,
        "rope_scaling": None,
    }
    check_defaults(hf_config, source, derived, "ModernBERT")
    if config.head_size % 2:
        raise UserError(
            f"{source}: heads of attention of {config.head_size} features are not supported:"
            " rotary positions turn pairs, so expected an even number."
        )
    for name, known in (
        ("classifier_pooling", ("cls", "mean")),
        ("classifier_activation", ACTIVATIONS),
    ):
        if getattr(config, name) not in known:
            raise UserError(
                f"{source}: {name} is {getattr(config, name)!r}, expected one of"
                f" {', '.join(known)}."
            )
    places = _global_layers(hf_config, config, source)
    return dataclasses.replace(
        config, global_layers=places, **_rope_thetas(hf_config, config, source)
    )


def _global_layers(
    hf_config: Mapping[str, Any], config: ModernBertConfig, source: str
) -> tuple[int, ...] | None:
    """The places of the global layers in `layer_types`, None where there is none."""
    kinds, count = hf_config.get("layer_types"), config.num_hidden_layers
    if kinds is None:
        return None
    if not isinstance(kinds, list) or len(kinds) != count or not {*map(str, kinds)} <= {*_THETAS}:
        raise UserError(
            f"{source}: layer_types is {repr(kinds)[:80]}, expected a list of {count}"
            f" (num_hidden_layers), each one of {', '.join(_THETAS)}."
        )
    return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")


def _rope_thetas(
    hf_config: Mapping[str, Any], config: ModernBertConfig, source: str
) -> dict[str, float]:
    """The thetas by field; `rope_parameters` goes before the older spelling, which `config` has."""
    thetas = {field: getattr(config, field) for field in _THETAS.values()}
    if hf_config.get("local_rope_theta", 0) is None:  # in transformers 4: as the global one
        thetas["local_rope_theta"] = thetas["global_rope_theta"]
    rope = hf_config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or not set(rope) <= set(_THETAS):
        raise UserError(
            f"{source}: rope_parameters is {repr(rope)[:80]}, expected an object for each of"
            f" {', '.join(_THETAS)}."
        )
    for kind, field in _THETAS.items():
        own = rope.get(kind) or {}
        where = f"{source}: rope_parameters: {kind}"
        if not isinstance(own, dict):
            raise UserError(f"{where} is {repr(own)[:80]}, expected an object.")
        check_defaults(own, where, {"rope_type": "default", "type": "default"}, "ModernBERT")
        theta = own.get("rope_theta", thetas[field])
        is_number = isinstance(theta, int | float) and not isinstance(theta, bool)
        if not is_number or not 0 < theta < _MOST_THETA:
            raise UserError(
                f"{source}: rope_theta of {kind} ({field}) is {repr(theta)[:80]}, expected a number"
                f" above 0 and below {_MOST_THETA:g}."
            )
        thetas[field] = float(theta)
    return thetas
