"""What a step of a strategy costs: operations, memory and time, beside a step of `full`."""

import itertools
import statistics
import time
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from jaxtune.core import trees
from jaxtune.data.batching import batches
from jaxtune.run import stages
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.plan import stage_start
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run, make_tx
from jaxtune.training.step import make_train_step
from jaxtune.tuning.partition import Staged

SHAPE = (32, 48)  # examples, tokens
TIMED, WARM = 7, 1  # steps
QUIET = Report(Console(quiet=True))


class Step(NamedTuple):
    """A compiled training step of one stage, ready to be timed."""

    program: Any
    state: Any
    frozen: Any
    share: float  # of the run's steps


def costs(config: str, own: dict[str, str], other: dict[str, str]) -> dict[str, Any]:
    """FLOPs, memory and time of a step, means over the stages, beside those of `full`."""
    run, full = (prepare(load_config(config, words), QUIET) for words in (own, other))
    batch = one_batch(run)
    steps, (base,) = compiled_steps(run, batch), compiled_steps(full, batch)
    times: dict[int, list[float]] = {index: [] for index in range(-1, len(steps))}
    for repeat in range(WARM + TIMED):
        for index, step in enumerate((base, *steps), start=-1):
            seconds, state = timed(step, batch)
            if index < 0:
                base = base._replace(state=state)
            else:
                steps[index] = step._replace(state=state)
            if repeat >= WARM:
                times[index].append(seconds)
    median = {index: statistics.median(values) for index, values in times.items()}
    ratios = [
        statistics.median(a / b for a, b in zip(times[index], times[-1], strict=True))
        for index in range(len(steps))
    ]
    share = [step.share for step in steps]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "jax": version("jax"),
        "parameters": trees.count(full.params),
        "trainable": [trees.count(step.state.params) for step in steps],
        "flops": mean([flops(step) for step in steps], share),
        "full_flops": flops(base),
        "memory_bytes": max((memory(step) for step in steps), key=lambda m: m or 0),
        "full_memory_bytes": memory(base),
        "step_seconds": mean([median[index] for index in range(len(steps))], share),
        "full_step_seconds": median[-1],
        "time_ratio": mean(ratios, share),
    }


def compiled_steps(run: Run, batch: dict[str, np.ndarray]) -> list[Step]:
    """The step of each stage, with the share of the run's steps that it takes."""
    found = []
    for index, share in enumerate(stage_shares(run)):
        stage = stages.begin(run, index, jax.tree.map(jax.numpy.array, run.params))
        # The whole model: the run itself computes frozen layers once for each example.
        step = make_train_step(run.tuning.apply_fn, run.goal.loss_fn, make_tx(run, index))
        jitted = jax.jit(step, donate_argnums=(0,))
        program = jitted.lower(stage.state, stage.frozen, batch).compile()
        found.append(Step(program, stage.state, stage.frozen, share))
    return found


def stage_shares(run: Run) -> list[float]:
    """How much of a run's steps each stage of its strategy takes."""
    count, strategy = len(run.tuning.stage_labels), run.tuning.strategy
    starts = [0]
    if isinstance(strategy, Staged):
        starts = [stage_start(strategy, i, run.goal.steps_per_epoch) or 0 for i in range(count)]
    ends = itertools.pairwise([*starts, run.goal.num_steps])
    return [(end - start) / run.goal.num_steps for start, end in ends]


def timed(step: Step, batch: dict[str, np.ndarray]) -> tuple[float, Any]:
    start = time.perf_counter()
    state, info = jax.block_until_ready(step.program(step.state, step.frozen, batch))
    del info
    return time.perf_counter() - start, state


def one_batch(run: Run) -> dict[str, np.ndarray]:
    """The longest training examples that fit the shape."""
    examples, (size, tokens) = run.data.examples["train"], SHAPE
    lengths = np.where(examples.lengths <= tokens, examples.lengths, 0)
    index = batches.BatchIndex(np.argsort(lengths)[-size:], tokens)
    return examples.collate(index, size)


def flops(step: Step) -> float | None:
    analysis = step.program.cost_analysis()
    return analysis.get("flops") if analysis else None


def memory(step: Step) -> int | None:
    """Bytes of arguments, outputs and temporaries; what is donated counts once."""
    found = step.program.memory_analysis()
    if found is None:
        return None
    size = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return size - found.alias_size_in_bytes


def mean(values: list[Any], weights: list[float]) -> float | None:
    if None in values:
        return None
    return sum(value * weight for value, weight in zip(values, weights, strict=True))
