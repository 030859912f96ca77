"""Whether attention can be computed as `precision.attention` asks for."""

import importlib.util
from typing import Any

from jaxtune.core.device import Device
from jaxtune.core.errors import UserError

_TRITON = "jax.experimental.pallas.triton"  # JAX has announced to remove it
_REMEDY = "Set config.precision.attention=auto, which chooses by device and length."


def check_attention(wanted: str, config: Any, device: Device) -> None:
    """Refuses the fused kernel where there is none.

    Args:
      wanted: `precision.attention`.
      config: of the model, as its family reads it.
      device: that the run computes on.

    Raises:
      UserError: a CPU, an old card, or heads of a size that the kernel has no tiles for.
    """
    if wanted == "auto":
        return
    found, expected = "", ""
    size = _head_size(config)
    if device.platform == "cpu":
        found, expected = "this process computes on a CPU", "a GPU or a TPU"
    elif size is None:
        found, expected = "the model has no attention", "a transformer"
    elif getattr(config, "has_distances", False):
        found, expected = "the model has scores by distance", "a model without them"
    elif device.platform == "gpu" and device.capability < 8:
        found = f"the card is of compute capability {device.capability}"
        expected = "8.0 or later"
    elif device.platform == "gpu" and importlib.util.find_spec(_TRITON) is None:
        found, expected = f"this JAX has no {_TRITON}", "one that has"
    elif device.platform == "gpu" and size not in (16, 32, 64, 128):
        found, expected = f"the model's heads have {size} features", "16, 32, 64 or 128 on a GPU"
    if found:
        raise UserError(
            f"config.precision.attention is {wanted!r}, but {found}: expected {expected}. {_REMEDY}"
        )


def _head_size(config: Any) -> int | None:
    def first(*names: str) -> int:
        return next((getattr(config, name) for name in names if hasattr(config, name)), 0)

    heads = first("num_attention_heads", "n_heads", "n_head")
    return first("hidden_size", "dim", "n_embd") // heads if heads else None
