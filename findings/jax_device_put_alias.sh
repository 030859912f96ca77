#!/usr/bin/env bash
# jax.device_put(x, may_alias=False) of a numpy array may still share its memory.
#
# One would guess: device_put copies a numpy array, at the latest with `may_alias=False`, of which the
# documentation says that the array will be copied. And if one call copies, all do.
#
# What happens, on the CPU: where the data begins at a multiple of 64 bytes, the jax.Array is the numpy
# array's own memory, with may_alias=False as well. A later write to the numpy array changes the
# "immutable" one. Four bytes further on there is a copy. jnp.asarray and jnp.array copy in both cases.
# Where numpy's memory begins is the allocator's matter: the same program is right on some runs.
#
# Versions: jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6.
#
# Why it matters: a loader that fills one buffer again and again, and puts it on the device for each
# batch, trains on the next batch's rows, now and then. No test with one batch sees it.
#
# What to do: give each batch an array of its own, or put `x.copy()`, or use jnp.array(x).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$work/env/bin/python" - <<'EOF'
import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__, "numpy", np.__version__)


def floats(past):
    """1,000 zeros that begin so many bytes past a multiple of 64."""
    room = np.zeros(4000 + 128, np.uint8)
    first = -room.ctypes.data % 64 + past
    return room[first : first + 4000].view(np.float32)


ways = {
    "device_put(x)": jax.device_put,
    "device_put(x, may_alias=False)": lambda x: jax.device_put(x, may_alias=False),
    "jnp.asarray(x)": jnp.asarray,
    "jnp.array(x)": jnp.array,
}
seen = {}
for name, put in ways.items():
    for past in (0, 4):
        x = floats(past)
        y = jax.block_until_ready(put(x))
        x[:] = 5
        seen[name, past] = float(y[0])
        print(f"{name}, {past} bytes past 64: zeros were put, then x[:] = 5; y[0] is {y[0]}")
shared = {key for key, value in seen.items() if value == 5}
assert shared == {("device_put(x)", 0), ("device_put(x, may_alias=False)", 0)}, shared
EOF
