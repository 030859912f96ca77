"""Part of benchmarks/growth.py: temporaries and speed of a training step as rows grow.

Models drawn at random, one row of t tokens (or t x b), classification with dropout as the family
has it. Temporaries are those of the compiled program (`memory_analysis`), or of torch the most
resident memory beyond what model, moments and gradients take; tokens/s the median of three steps.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from growth_table import PEERS, Options, Row


class Step(NamedTuple):
    """A training step that a process measures."""

    family: str
    layers: int
    width: int
    heads: int
    rows: int
    tokens: int
    timed: int = 0


def rows(options: Options) -> Iterator[Row]:
    """Long rows by themselves, and those that peers were measured on."""
    lengths = (512, 1024, 2048) if options.quick else (1024, 2048, 4096, 8192)
    for name, shape in {
        "ModernBERT": ("modernbert", 4, 128, 4),
        "BERT": ("bert", 4, 256, 8),
    }.items():
        steps = [Step(*shape, 1, length) for length in lengths]
        title = f"{name} 4 x {shape[2]}, one row of {' '.join(map(str, lengths))}: temporaries"
        yield _compare(title, lengths, steps, "temporaries", "MB", options)
    for title, step in {
        "ModernBERT 4 x 128, 4 x 1,808": Step("modernbert", 4, 128, 4, 4, 1808, 3),
        "ModernBERT 4 x 128, 4 x 2,048": Step("modernbert", 4, 128, 4, 4, 2048, 3),
        "BERT 4 x 256, 8 x 512, dropout": Step("bert", 4, 256, 8, 8, 512, 3),
    }.items():
        for field, unit in (("temporaries", "MB"), ("speed", "tokens/s")):
            yield _compare(f"{title}: {field}", (), [step], field, unit, options)


_measured: dict[Any, dict[str, float]] = {}


def _compare(
    what: str,
    sizes: Sequence[float],
    steps: Sequence[Step],
    field: str,
    unit: str,
    options: Options,
) -> Row:
    """The same steps in each build and in torch, by turns."""
    found: dict[Any, list[float]] = {}
    for step in steps:
        for build in [*options.builds, *([options.torch] if options.torch and step.timed else [])]:
            key = (str(build), step)
            if key not in _measured:
                _measured[key] = _in_process(build, step)
            found.setdefault(str(build), []).append(_measured[key][field])
    own = found[str(options.builds[-1])]
    before = found[str(options.before)] if options.before else ()
    return Row(what, unit, own, sizes, before, found.get(str(options.torch), ()))


def _in_process(build: Path | str, step: Step) -> dict[str, float]:
    """What `measure` gives, in a process of its own: of a checkout, or of a Python with torch."""
    if isinstance(build, Path):
        env = os.environ | {"PYTHONPATH": str(build.absolute())}
        command = [sys.executable, __file__, json.dumps(step)]
    else:
        env = dict(os.environ)
        command = [build, str(PEERS / "sdpa_step.py"), json.dumps(step)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(step: Step) -> dict[str, float]:
    """Temporaries of the compiled step in MB, and tokens a second."""
    import jax

    program, state, frozen, batch = _compile(step)
    found = {"temporaries": program.memory_analysis().temp_size_in_bytes / 1e6, "speed": 0.0}
    times = []
    for _ in range(1 + step.timed if step.timed else 0):
        start = time.perf_counter()
        state, told = program(state, frozen, batch)
        jax.block_until_ready(told)
        times.append(time.perf_counter() - start)
    if times:
        found["speed"] = step.rows * step.tokens / statistics.median(times[1:])
    return found


def _compile(step: Step) -> tuple[Any, Any, Any, Any]:
    """(program, state, frozen, batch)."""
    import jax
    import optax

    from jaxtune.models import registry
    from jaxtune.training.losses import cross_entropy
    from jaxtune.training.optimizers import make_optimizer
    from jaxtune.training.state import init_state
    from jaxtune.training.step import make_train_step
    from jaxtune.tuning import partition
    from jaxtune.tuning.registry import make_strategy

    family = registry.FAMILIES[step.family]
    config = family.config_from_hf(
        {
            "model_type": step.family,
            "hidden_size": step.width,
            "num_hidden_layers": step.layers,
            "num_attention_heads": step.heads,
            "intermediate_size": step.width * 4 if step.family == "bert" else step.width * 3 // 2,
            "max_position_embeddings": max(step.tokens, 512),
        },
        "config.json",
    )
    module = family.make_module("sequence", config, 4, jax.numpy.float32)
    params = jax.jit(lambda: registry.init_params(module, jax.random.key(0)))()
    labels = partition.label(make_strategy("full", {}), params)
    names = partition.trainable_labels(labels)
    tx = make_optimizer("adamw", optax.constant_schedule(1e-4), names)
    trainable, frozen = partition.partition(params, labels)
    state = init_state(trainable, tx, jax.random.key(0))
    rng, shape = np.random.default_rng(0), (step.rows, step.tokens)
    batch = {
        "input_ids": rng.integers(5, 1000, shape).astype(np.int32),
        "attention_mask": np.ones(shape, np.int32),
        "labels": rng.integers(0, 4, step.rows).astype(np.int32),
        "weight": np.ones(step.rows, np.float32),
    }
    run = jax.jit(make_train_step(registry.make_apply(module), cross_entropy, tx), donate_argnums=0)
    lowered = run.lower(state, frozen, batch)
    return lowered.compile(_compiler_options()), state, frozen, batch


def _compiler_options() -> Any:
    """As a run has them; None in a build that has none."""
    try:
        from jaxtune.training.compiler_options import least_memory
    except ImportError:
        return None
    try:
        from jaxtune.core.device import this_device
    except ImportError:  # a build that asks by itself
        return least_memory()
    return least_memory(this_device())


if __name__ == "__main__":
    print(json.dumps(measure(Step(*json.loads(sys.argv[1])))))
