"""The fields of a DINOv2's `config.json`, with registers and without."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from jaxtune.core.errors import UserError
from jaxtune.models.hf_config import check_defaults, check_heads, read_fields
from jaxtune.models.resample import Taps, cubic, smooth_cubic


@dataclasses.dataclass(frozen=True)
class Dinov2Config:
    """The fields of a Hugging Face DINOv2 `config.json` that shape the computation.

    Attributes:
      pretrained_size: pixels of an image's side that the positions are for, `image_size` in the
        file; images may have any.
      num_register_tokens: between the class token and the patches; no field of a file without them.
    """

    pretrained_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: float = 4.0
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    qkv_bias: bool = True
    layerscale_value: float = 1.0
    drop_path_rate: float = 0.0
    use_swiglu_ffn: bool = False
    num_register_tokens: int = 0

    @property
    def pretrained_side(self) -> int:
        """Patches of a side that the positions are for."""
        return self.pretrained_size // self.patch_size

    @property
    def taps(self) -> Taps:
        """How positions are resampled."""
        return cubic

    @property
    def inner_width(self) -> int:
        """Features inside a feed-forward block; two thirds, in eights, where it has gates."""
        width = int(self.hidden_size * self.mlp_ratio)
        return (int(width * 2 / 3) + 7) // 8 * 8 if self.use_swiglu_ffn else width


@dataclasses.dataclass(frozen=True)
class Dinov2WithRegistersConfig(Dinov2Config):
    """Those of a DINOv2 with registers."""

    patch_size: int = 16
    num_register_tokens: int = 4

    @property
    def taps(self) -> Taps:
        """How positions are resampled."""
        return smooth_cubic


Kind = TypeVar("Kind", bound=Dinov2Config)
_ALIASES = MappingProxyType({"image_size": "pretrained_size"})


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> Dinov2Config:
    """See `Family`."""
    fields = {name: value for name, value in hf_config.items() if name != "num_register_tokens"}
    return _read(Dinov2Config, fields, source)


def config_with_registers(hf_config: Mapping[str, Any], source: str) -> Dinov2Config:
    """See `Family`."""
    return _read(Dinov2WithRegistersConfig, hf_config, source)


def _read(kind: type[Kind], hf_config: Mapping[str, Any], source: str) -> Kind:
    own = {name: value for name, value in hf_config.items() if name != "pretrained_size"}
    config = read_fields(kind, own, source, activation="hidden_act", aliases=_ALIASES)
    check_heads(config.hidden_size, config.num_attention_heads, source)
    head_dim = config.hidden_size // config.num_attention_heads
    check_defaults(hf_config, source, {"head_dim": head_dim}, "DINOv2")
    if config.patch_size > config.pretrained_size:
        raise UserError(
            f"{source}: patch_size {config.patch_size} is larger than image_size"
            f" {config.pretrained_size}."
        )
    if not 0 <= config.drop_path_rate < 1:
        raise UserError(
            f"{source}: drop_path_rate is {config.drop_path_rate:g}, expected at least 0 and below"
            " 1."
        )
    if config.inner_width < 1 or config.inner_width > 2**20:
        raise UserError(
            f"{source}: mlp_ratio is {config.mlp_ratio:g}, expected a number that makes 1 to"
            f" {2**20} features of hidden_size {config.hidden_size}."
        )
    return config
