#!/usr/bin/env bash
# numpy and scipy on bfloat16 arrays: means of 0.26 for ones, and a softmax that sums to 7.
#
# One would guess: np.mean of bfloat16 adds in float32, as it does for float16, or in pairs; and
# scipy.special.softmax gives probabilities that add up to 1, to two digits.
#
# What happens: numpy knows bfloat16 through ml_dtypes alone. Its sums are made one by one in bfloat16 and
# stand still once what is added is at most half a step: 1,000 ones have the sum 256 and the mean 0.256,
# where float16 gives 1.0. scipy.special.softmax divides by such a sum: over 3,000 classes, evenly likely,
# the probabilities add up to 11.7. jnp.mean and jax.nn.softmax of the same arrays are right.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0, scipy 1.17.1, jax 0.10.2.
#
# Why it matters: np.asarray of a bfloat16 jax.Array, or of bfloat16 weights from safetensors, is such an
# array. A mean loss over a batch, mean pooling or a softmax after it is wrong, and is no NaN.
#
# What to do: .astype(np.float32) at the border, or np.mean(x, dtype=np.float32); softmax on the device.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0 scipy==1.17.1 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$work/env/bin/python" - <<'EOF'
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import scipy
from scipy.special import softmax

print("numpy", np.__version__, "ml_dtypes", ml_dtypes.__version__, "scipy", scipy.__version__)
ones = jnp.ones(1000, jnp.bfloat16)
means = {
    "np.mean of float16": np.asarray(ones).astype(np.float16).mean(),
    "np.mean of bfloat16": np.asarray(ones).mean(),
    "np.mean of bfloat16, dtype=float32": np.asarray(ones).mean(dtype=np.float32),
    "jnp.mean of bfloat16": ones.mean(),
}
for name, mean in means.items():
    print(f"{name}, 1,000 ones: {float(mean):.4f}")
    assert abs(float(mean) - (0.256 if name == "np.mean of bfloat16" else 1.0)) < 0.01, name

logits = jnp.zeros(3000, jnp.bfloat16)
sums = {
    "scipy softmax of bfloat16": np.asarray(softmax(np.asarray(logits)), np.float64).sum(),
    "scipy softmax of float16": np.asarray(softmax(np.zeros(3000, np.float16)), np.float64).sum(),
    "jax.nn.softmax of bfloat16": np.asarray(jax.nn.softmax(logits), np.float64).sum(),
}
for name, total in sums.items():
    print(f"{name}, 3,000 equal logits: probabilities add up to {total:.3f}")
    expected = 3000 / 256 if name == "scipy softmax of bfloat16" else 1.0
    assert abs(total - expected) < 0.01 * expected, (name, total)
EOF
