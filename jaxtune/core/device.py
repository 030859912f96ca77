"""What kind of device a program is made for, which need not be one that is here."""

from typing import NamedTuple

import jax


class Device(NamedTuple):
    """What is chosen by the device while a program is traced follows from this alone.

    Attributes:
      platform: `cpu`, `gpu` or `tpu`, as JAX names it.
      capability: of a GPU, its compute capability; 0 elsewhere.
    """

    platform: str
    capability: float = 0.0


def this_device() -> Device:
    """The kind that JAX computes on in this process unless told otherwise."""
    platform = jax.default_backend()
    if platform != "gpu":
        return Device(platform)
    return Device(platform, float(getattr(jax.devices()[0], "compute_capability", 0)))
