#!/usr/bin/env bash
# Orbax's CheckpointManager: after one NaN metric the best checkpoint is deleted, and a worse one is "best".
#
# One would guess: with best_fn a checkpoint whose metric is NaN is never the best, and the one with the
# lowest loss is kept.
#
# What happens: the checkpoints are sorted by the metric as it is, and NaN is neither less nor more than
# anything, so the order around it is that of arrival. With best_mode="min" and max_to_keep=1, losses
# 0.5, NaN leave the NaN; losses 0.5, 1.0, NaN, 2.0 leave the one with 2.0. best_step() names these, and
# the checkpoint with 0.5 is gone from the disk. No warning is given.
#
# Versions: orbax-checkpoint 0.12.8, jax 0.10.2.
#
# Why it matters: a run that diverges at its end, or one evaluation without a valid row, is just when
# the best checkpoint is needed.
#
# What to do: let best_fn turn what is not finite into the worst value:
# lambda m: m["loss"] if math.isfinite(m["loss"]) else math.inf (-math.inf where more is better).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$work/env/bin/python" - "$work" <<'EOF'
import importlib.metadata
import logging
import math
import pathlib
import sys

import numpy as np
import orbax.checkpoint as ocp

logging.disable(logging.WARNING)
print("orbax-checkpoint", importlib.metadata.version("orbax-checkpoint"))
nan = math.nan


def left(name, losses, best_fn):
    """The steps on disk, and the best of them, after these losses."""
    options = ocp.CheckpointManagerOptions(max_to_keep=1, best_fn=best_fn, best_mode="min")
    with ocp.CheckpointManager(pathlib.Path(sys.argv[1]) / name, options=options) as manager:
        for step, loss in enumerate(losses):
            args = ocp.args.StandardSave({"w": np.ones(2)})
            manager.save(step, args=args, metrics={"loss": loss})
        manager.wait_until_finished()
        return list(manager.all_steps()), manager.best_step()


plain = lambda m: m["loss"]
guarded = lambda m: m["loss"] if math.isfinite(m["loss"]) else math.inf
expected = [
    ("finite", [0.5, 1.0, 2.0], plain, 0),
    ("last", [0.5, nan], plain, 1),
    ("amid", [0.5, 1.0, nan, 2.0], plain, 3),
    ("guarded", [0.5, 1.0, nan, 2.0], guarded, 0),
]
for name, losses, best_fn, best in expected:
    steps, found = left(name, losses, best_fn)
    print(f"{name}: losses {losses}: kept {steps}, best step {found}, loss {losses[found]}")
    assert (steps, found) == ([best], best), (name, steps, found)
EOF
