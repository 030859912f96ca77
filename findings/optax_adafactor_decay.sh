#!/usr/bin/env bash
# optax.adafactor: weight_decay_rate is not multiplied by the learning rate, nor by the schedule.
#
# One would guess: weight_decay_rate=0.01 does what weight_decay=0.01 does in optax.adamw, where each
# step takes learning_rate * 0.01 of a weight.
#
# What happens: each step takes 0.01 of each weight, whatever the rate, also in warm-up, where the rate
# is 0. After 100 steps with zero gradients and a rate of 1e-5 a weight of 1 is 0.366; with adamw it is
# 0.99999. adamw, lion, nadamw, adamaxw, adan, novograd and muon all scale their decay by the rate.
#
# Versions: optax 0.2.8, jax 0.10.2.
#
# Why it matters: with a decay copied from an AdamW recipe, fine-tuning forgets the pretrained weights in
# some hundred steps, and the loss looks like that of a wrong learning rate.
#
# What to do: pass rate * decay, where the rate is constant; with a schedule leave weight_decay_rate
# unset and chain scale_by_factored_rms, add_decayed_weights and scale_by_learning_rate.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$work/env/bin/python" - <<'EOF'
import importlib.metadata

import jax.numpy as jnp
import optax

print("optax", importlib.metadata.version("optax"))


def after(tx, steps):
    """A weight of 1 after so many steps whose gradient is zero."""
    params = {"w": jnp.ones((2, 2))}
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update({"w": jnp.zeros((2, 2))}, state, params)
        params = optax.apply_updates(params, updates)
    return float(params["w"][0, 0])


found = {
    "adamw, rate 1e-5": after(optax.adamw(1e-5, weight_decay=0.01), 100),
    "lion, rate 1e-5": after(optax.lion(1e-5, weight_decay=0.01), 100),
    "adafactor, rate 1e-5": after(optax.adafactor(1e-5, weight_decay_rate=0.01), 100),
    "adafactor, rate 1e-3": after(optax.adafactor(1e-3, weight_decay_rate=0.01), 100),
    "adafactor, schedule at 0": after(
        optax.adafactor(optax.constant_schedule(0.0), weight_decay_rate=0.01), 100
    ),
}
for name, weight in found.items():
    print(f"{name}: decay 0.01, 100 steps, zero gradients: 1 became {weight:.5f}")
    expected = 0.99**100 if "adafactor" in name else 1 - 100 * 1e-5 * 0.01
    assert abs(weight - expected) < 1e-4, (name, weight, expected)
EOF
