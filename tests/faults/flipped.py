"""Reads copies of a checkpoint in each of which one bit is wrong; prints what came of each.

python flipped.py FOLDER STEP COUNT. Threads of Orbax print tracebacks of their own where data is
damaged, so this is a process of its own.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtune.run.checkpoint import Checkpoints, DamagedCheckpointError
from jaxtune.training.state import init_state


def make_state(step):
    params = {"a": jax.random.normal(jax.random.key(step), (40, 30)), "b": jnp.ones(3)}
    state = init_state(params, optax.adam(1e-3), jax.random.key(1))
    return state._replace(step=jnp.int32(step))


def outcome(folder, step):
    try:
        with Checkpoints(folder) as checkpoints:
            if checkpoints.unreadable:
                return "damaged" if checkpoints.unreadable == [step] else "wrong"
            checkpoints.progress(step)
            state, _ = checkpoints.restore(step, make_state(0))
    except DamagedCheckpointError as error:
        return "damaged" if str(folder / str(step)) in str(error) else "not named"
    right = jax.tree.leaves(make_state(step)._replace(key=None))
    found = jax.tree.leaves(state._replace(key=None))
    same = all(np.array_equal(a, b) for a, b in zip(right, found, strict=True))
    return "unharmed" if same else "wrong"


def main(folder, step, count):
    rng, found = np.random.default_rng(0), []
    files = sorted(f for f in (folder / str(step)).rglob("*") if f.is_file() and f.stat().st_size)
    sizes = np.array([file.stat().st_size for file in files])
    for number in range(count):
        file = files[rng.choice(len(files), p=sizes / sizes.sum())]
        copy = folder.with_name(f"copy-{number}")
        shutil.copytree(folder, copy)
        raw = bytearray(file.read_bytes())
        raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        (copy / file.relative_to(folder)).write_bytes(bytes(raw))
        found.append([str(file.relative_to(folder)), outcome(copy, step)])
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
