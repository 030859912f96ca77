"""What this machine computes with, as far as it can be told without measuring."""

from pathlib import Path
from typing import NamedTuple

import jax

_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_CPU_INFO = Path("/proc/cpuinfo")
_AMPERE = 8.0


class Machine(NamedTuple):
    """A machine.

    Attributes:
      accelerated: whether there is more than a CPU.
      bfloat16: whether it is known to multiply bfloat16 quicker than float32.
    """

    accelerated: bool = False
    bfloat16: bool = False


def this_machine() -> Machine:
    """The one that this process runs on."""
    backend = jax.default_backend()
    if backend == "cpu":
        return Machine(False, _has_flag())
    if backend != "gpu":
        return Machine(True, backend == "tpu")
    capability = getattr(jax.devices()[0], "compute_capability", "0")
    return Machine(True, float(capability) >= _AMPERE)


def _has_flag() -> bool:
    """Whether the CPU has instructions for it; False where the system does not tell."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool({*flags.split()} & _CPU_FLAGS)
