"""In which dtype products are computed, and on what kind of device."""

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
    """

    dtype: jnp.dtype
    device: Device


def arithmetic(dtype: Any, device: Device | None = None) -> Arithmetic:
    """The arithmetic of a model.

    Args:
      dtype: of the products.
      device: that the model's programs are made for; None for this process's own.
    """
    return Arithmetic(jnp.dtype(dtype), this_device() if device is None else device)


def device_of(dtype: Any) -> Device:
    """What a dtype is for: an `Arithmetic` says it, any other is for this process's own device."""
    return dtype.device if isinstance(dtype, Arithmetic) else this_device()
