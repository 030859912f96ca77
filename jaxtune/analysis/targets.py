"""Devices to compile for that need not be here, by name: `h100`, `h100:8`, `v5e:4x4`."""

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh

from jaxtune.core.device import Device
from jaxtune.core.errors import UserError, nearest
from jaxtune.core.extras import is_installed


class Chip(NamedTuple):
    """One device, as its maker describes it.

    Attributes:
      device: what programs for it are traced for.
      memory: bytes of it.
      bandwidth: bytes/s of its memory.
      peak: operations/s of dense products, by the dtype of the operands as XLA spells it.
      launch: seconds that a kernel takes beside what it moves or computes.
      link: bytes/s that it sends to devices near it.
      near: devices that are near each other; 0 for all.
      far_link: bytes/s that it sends to the others.
    """

    device: Device
    memory: float
    bandwidth: float
    peak: Mapping[str, float]
    launch: float
    link: float
    near: int = 0
    far_link: float = 0.0


def _tpu(memory: float, bandwidth: float, peak: float, link: float) -> Chip:
    # float32 products take several passes of bfloat16 only where the precision says so.
    return Chip(
        Device("tpu"), memory, bandwidth, {"bf16": peak, "f32": peak, "s8": 2 * peak}, 0.0, link
    )


CHIPS = {
    "h100": Chip(
        Device("gpu", 9.0),
        *(80e9, 3.35e12),
        {"bf16": 989e12, "f16": 989e12, "f32": 495e12, "s8": 1979e12},  # f32 as TF32
        *(4.1e-6, 450e9, 8, 50e9),
    ),
    "v4": _tpu(32e9, 1.228e12, 275e12, 150e9),
    "v5e": _tpu(16e9, 0.819e12, 197e12, 100e9),
    "v5p": _tpu(95e9, 2.765e12, 459e12, 300e9),
    "v6e": _tpu(32e9, 1.64e12, 918e12, 224e9),
}
"""By name. `launch` of the H100 is fitted to two steps on a card (benchmarks/RESULTS.md). Links of
TPUs are half of what all links of a chip carry."""

_H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 device_memory_size: 84929347584 l2_cache_size: 52428800
}
"""
"""XLA's GpuTargetConfigProto; the numbers are those of the CUDA driver for this card."""


_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",  # a server that only a TPU's machine has
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # or of all processes of a machine one alone can compile
}
"""What libtpu would ask about the machine; what it compiles for is said each time."""


class Target(NamedTuple):
    """Devices that a program is compiled for.

    Attributes:
      name: as it was typed.
      chip: each of them.
      devices: as JAX has them, for meshes and shardings; nothing can be computed on them.
    """

    name: str
    chip: Chip
    devices: tuple[Any, ...]


def tracing_for(target: Target) -> contextlib.AbstractContextManager[Any]:
    """In it a program for one GPU that is not here can be lowered: Pallas asks what card it is."""
    device = target.devices[0]
    if target.chip.device.platform != "gpu" or len(target.devices) > 1:
        return contextlib.nullcontext()
    kind = AbstractDevice(device_kind=device.device_kind, num_cores=None, platform="gpu")
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), axis_types=(), abstract_device=kind))


def find_target(name: str) -> Target:
    """The devices of a name.

    Args:
      name: `h100`, or `h100:8` for so many in a host, `h100:4x8` for hosts of so many; `v5e` for
        one chip, `v5e:4x4` for a slice; likewise v4, v5p (`v5p:2x2x2`) and v6e.

    Raises:
      UserError: no such device or no such number, the plugin that compiles for it is absent, or
        this process computes on an accelerator.
    """
    kind, colon, sizes = name.partition(":")
    if kind not in CHIPS:
        raise UserError(
            f"--target={name}: expected one of {', '.join(CHIPS)}, with a number of devices such as"
            f" h100:8 or v5e:4x4.{nearest(kind, CHIPS)}"
        )
    if colon and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", sizes):
        raise UserError(
            f"--target={name}: found {sizes!r} devices, expected numbers such as 8 or 4x8."
        )
    chip = CHIPS[kind]
    _check_plugin(name, chip)
    try:
        found = topologies.get_topology_desc(**topology(kind, sizes))
    except NotImplementedError:  # the plugin has looked for a device, and given up
        raise UserError(
            f"--target={name}: this process has looked for such a device before, and can no longer"
            " compile for one. Set JAX_PLATFORMS=cpu."
        ) from None
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--target={name}: {str(error).splitlines()[0][:200]}. Expected sizes that there are,"
            f" such as {'h100:8' if kind == 'h100' else f'{kind}:{_smallest(kind)}'}."
        ) from None
    return Target(name, chip, tuple(found.devices) if sizes else (found.devices[0],))


def topology(kind: str, sizes: str) -> dict[str, str]:
    """What `jax.experimental.topologies.get_topology_desc` is asked for.

    Args:
      kind: one of CHIPS.
      sizes: as of a target's name; empty for one device, which of a TPU is one of several.

    Raises:
      UserError: three sizes of GPUs.
    """
    if CHIPS[kind].device.platform == "tpu":
        return {"platform": "tpu", "topology_name": f"{kind}:{sizes or _smallest(kind)}"}
    hosts, _, cards = (sizes or "1").rpartition("x")
    if "x" in hosts:
        raise UserError(f"--target={kind}:{sizes}: expected {kind}:CARDS or {kind}:HOSTSxCARDS.")
    return {"platform": "cuda", "target_config": _H100, "topology": f"1x{hosts or 1}x{cards}"}


def _smallest(kind: str) -> str:
    return "2x2x1" if kind in ("v4", "v5p") else "2x2"


def _check_plugin(name: str, chip: Chip) -> None:
    """Refuses a target whose compiler is not installed, or cannot be reached from this process."""
    package, extra = "libtpu", "tpu"
    if chip.device.platform == "gpu":
        package, extra = "jax_cuda12_plugin", "cuda12"
    if not (is_installed(package) or (extra == "cuda12" and is_installed("jax_cuda13_plugin"))):
        raise UserError(
            f"--target={name} needs {package}, whose compiler runs without such a device: pip"
            f' install "jaxtune[{extra}]" brings it.'
        )
    for setting, value in _NO_TPU_HERE.items():
        os.environ.setdefault(setting, value)
    # The plugin of an accelerator must not look for one, or it registers no compiler either.
    jax.config.update("jax_platforms", "cpu")
    if jax.default_backend() != "cpu":
        raise UserError(
            f"--target={name}: programs for devices that are not here are compiled in a process"
            f" that computes on a CPU, and this one has begun to on a {jax.default_backend()}. Set"
            " JAX_PLATFORMS=cpu."
        )
