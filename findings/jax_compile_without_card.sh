#!/usr/bin/env bash
# To compile for an NVIDIA card that is not there, JAX is to be told to use the CPU alone.
#
# One would guess: a program for CUDA is asked for with JAX_PLATFORMS=cuda, or with nothing set, since
# `get_topology_desc(platform="cuda", target_config=...)` asks no card; and what comes back is the program
# that the card would run, with the costs that cost_analysis() tells.
#
# What happens: the plugin, where it may look for a card, fails without a driver and registers nothing:
# "topology not implemented for cuda", which says nothing of a driver. With JAX_PLATFORMS=cpu the plugin is
# never started, and the same call gives devices to compile for. While such a program is traced,
# jax.default_backend() is still `cpu`. cost_analysis() is None, memory_analysis() is there. And no kernel was
# chosen by trying it: a product that cuBLAS does on a card is XLA's own Triton kernel, cut into several.
#
# Versions: jax 0.12.0.1 with its cuda12 plugin, nvidia-cuda-nvcc-cu12 12.9.86, on a machine without a card.
#
# Why it matters: the error sends one to look for a driver or another version; code that asks for the default
# backend while it is traced makes the CPU's program; and counts of kernels are not those of a profile.
#
# What to do: JAX_PLATFORMS=cpu, or jax.config.update("jax_platforms", "cpu") before anything is computed; give
# the device as a value to what is traced; compare programs that were compiled in the same way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
pip() { "$work/env/bin/pip" install -q --disable-pip-version-check "$@"; }
pip jax==0.12.0.1 jaxlib==0.12.0.1
pip --no-deps jax-cuda12-plugin==0.12.0.1 jax-cuda12-pjrt==0.12.0.1 nvidia-cuda-nvcc-cu12==12.9.86
cat > "$work/compile.py" <<'EOF'
import os

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

CARD = """
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
traced_for = []


def product(a, b):
    traced_for.append(jax.default_backend())
    return a @ b


found = "none"
try:
    topology = topologies.get_topology_desc(platform="cuda", target_config=CARD, topology="1x1x1")
except Exception as error:
    found = f"{type(error).__name__}: {error}"
else:
    device = topology.devices[0]
    place = SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16, sharding=place)
    program = jax.jit(product).lower(x, x).compile()
    text = program.as_text()
    found = f"{device.platform} {device.compute_capability}, default_backend {traced_for[0]}"
    found += f", cost_analysis {program.cost_analysis()}"
    found += f", temporaries {program.memory_analysis().temp_size_in_bytes > 0}"
    found += f", cuBLAS {'__cublas' in text}, Triton {'triton' in text}"
print(f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', 'not set')}: {found}")
EOF
seen=$(
  for platforms in cuda cpu; do
    JAX_PLATFORMS=$platforms "$work/env/bin/python" "$work/compile.py" 2> /dev/null
  done
  env -u JAX_PLATFORMS "$work/env/bin/python" "$work/compile.py" 2> /dev/null
)
echo "$seen"
expected="JAX_PLATFORMS=cuda: NotImplementedError: topology not implemented for cuda
JAX_PLATFORMS=cpu: gpu 9.0, default_backend cpu, cost_analysis None, temporaries True, cuBLAS False, Triton True
JAX_PLATFORMS=not set: NotImplementedError: topology not implemented for cuda"
[ "$seen" = "$expected" ]
