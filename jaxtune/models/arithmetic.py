"""In which dtype products are computed, on what kind of device, and how attention is."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxtune.core.device import Device, this_device


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """A dtype that knows its device.

    By its attribute `dtype` it may stand wherever JAX takes a dtype, as `jnp.bfloat16` itself does.

    Attributes:
      dtype: that products are computed in.
      device: that they are computed on.
      attention: `fused` for kernels of our own, of which that of attention holds no scores; `auto`
        by the shape of the rows.
    """

    dtype: jnp.dtype
    device: Device
    attention: str = "auto"


def arithmetic(dtype: Any, device: Device | None = None, attention: str = "auto") -> Arithmetic:
    """The arithmetic of a model.

    Args:
      dtype: of the products.
      device: that the model's programs are made for; None for this process's own.
      attention: see `Arithmetic`.
    """
    return Arithmetic(jnp.dtype(dtype), this_device() if device is None else device, attention)


def device_of(dtype: Any) -> Device:
    """What a dtype is for: an `Arithmetic` says it, any other is for this process's own device."""
    return dtype.device if isinstance(dtype, Arithmetic) else this_device()


def attention_of(dtype: Any) -> str:
    """How attention is to be computed: an `Arithmetic` says it, else `auto`."""
    return dtype.attention if isinstance(dtype, Arithmetic) else "auto"
