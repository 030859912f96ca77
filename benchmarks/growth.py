"""How time and memory grow with what a run is given: one table, with the build before or a peer.

    python benchmarks/growth.py --before OTHER/CHECKOUT

Each part of PARTS gives rows of the table. Where a part compares builds, it runs the same program
in processes of this checkout and of the one that `--before` names, by turns; without it that column
stays empty. `--only attention` chooses parts, `--quick` leaves out the large sizes.

Columns: what was measured; the build before, or the peer; this build; and the law, the exponent
that fits the values of this build over the sizes of the row: 1 is linear, 2 is quadratic.

attention: a training step of models drawn at random, one row of t tokens (or t x b), classification
with dropout as the family has it. Temporaries are those of the compiled program
(`memory_analysis`), tokens/s the median of three steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).absolute()


class Row(NamedTuple):
    """One row of the table; the values belong to the sizes."""

    what: str
    sizes: Sequence[float]
    before: Sequence[float]
    ours: Sequence[float]
    unit: str

    @property
    def law(self) -> float | None:
        """The exponent of a power of the size that fits our values best; None for one size."""
        if len(self.sizes) < 2:
            return None
        return float(np.polyfit(np.log(self.sizes), np.log(self.ours), 1)[0])


class Step(NamedTuple):
    """A training step that a process measures."""

    family: str
    layers: int
    width: int
    heads: int
    rows: int
    tokens: int
    timed: int = 0


def attention(options: argparse.Namespace) -> Iterator[Row]:
    """Temporaries and speed of long rows."""
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
            yield _compare(f"{title}: {field}", (step.tokens,), [step], field, unit, options)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {"attention": attention}

_measured: dict[Any, dict[str, float]] = {}


def _compare(
    what: str,
    sizes: Sequence[float],
    steps: Sequence[Step],
    field: str,
    unit: str,
    options: argparse.Namespace,
) -> Row:
    """The same steps in this build and in the one before, by turns."""
    builds = [options.before, HERE.parents[1]] if options.before else [HERE.parents[1]]
    found: list[list[float]] = [[] for _ in builds]
    for step in steps:
        for build, values in zip(builds, found, strict=True):
            key = (str(build), step)
            if key not in _measured:
                _measured[key] = _in_process(Path(build), step)
            values.append(_measured[key][field])
    return Row(what, sizes, found[0] if options.before else (), found[-1], unit)


def _in_process(build: Path, step: Step) -> dict[str, float]:
    """What `measure` gives, in a process of its own that takes jaxtune from a checkout."""
    env = os.environ | {"PYTHONPATH": str(build.absolute())}
    command = [sys.executable, str(HERE), "--step", json.dumps(step)]
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
    return run.lower(state, frozen, batch).compile(), state, frozen, batch


def _print(row: Row) -> None:
    """A row of a Markdown table."""
    texts = [" ".join(f"{x:,.0f}" for x in values) for values in (row.before, row.ours)]
    cells = [f"{text} {row.unit}" if text else "" for text in texts]
    law = "" if row.law is None else f"t^{row.law:.2f}"
    print(f"| {row.what} | {cells[0]} | {cells[1]} | {law} |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="a checkout of the build to compare with")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--quick", action="store_true", help="without the large sizes")
    parser.add_argument("--step", help=argparse.SUPPRESS)  # what a process of `_in_process` does
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(Step(*json.loads(options.step)))))
        return
    print("| what | before or peer | ours | law |\n|---|---|---|---|")
    for name, part in PARTS.items():
        if not options.only or name in options.only:
            for row in part(options):
                _print(row)


if __name__ == "__main__":
    main()
