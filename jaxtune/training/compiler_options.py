"""What the compiler is told about a training step."""

import functools
from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from jaxtune.core.device import Device

_LEAST_MEMORY = MappingProxyType(
    {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
)


@functools.cache
def least_memory(device: Device) -> Mapping[str, str] | None:
    """Operations in the order that keeps least alive; None where that is the compiler's own way.

    On a CPU XLA orders them so that many could run side by side. A step of training uses all cores
    within each, and half of its temporaries would wait for others: the gradients of a layer are to
    be used up before those of the next are there.

    Args:
      device: that the step is compiled for.
    """
    if device.platform != "cpu":
        return None
    try:
        program = jax.jit(jnp.negative).lower(jax.ShapeDtypeStruct((), jnp.float32))
        program.compile(compiler_options=dict(_LEAST_MEMORY))
    except jax.errors.JaxRuntimeError:  # a version without this option
        return None
    return _LEAST_MEMORY
