"""What each strategy costs and what it scores: the table of the README.

    python benchmarks/strategies.py --config=configs/agnews.py --workdir=runs/strategies \
        --config.model.path=MINILM --config.data.path=AG_NEWS

Scores: 2,000 training rows, two epochs, three seeds, accuracy on 2,000 test rows. Costs: one batch
of 32 x 48 tokens, steps of the strategy and of `full` by turns in one process. Each row of the
table is a process of its own; what is done is kept in the workdir, so that the same command goes on
where it was stopped. Overrides count for every row, so another rate is tried with
`--only=lora --seeds=0 --config.optimizer.learning_rate=1e-3`.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from jaxtune.core import trees
from jaxtune.data.batching import batches
from jaxtune.run import stages
from jaxtune.run.arguments import parse, run_flags
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.plan import stage_start
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run, make_tx
from jaxtune.run.train import train
from jaxtune.training.step import make_train_step
from jaxtune.tuning.partition import Staged

RECIPE = {
    "data.max_train_examples": "2000",
    "data.max_eval_examples": "2000",
    "data.validation_size": "200",
    "data.max_length": "64",
    "train.batch_size": "32",
    "train.num_epochs": "2",
    "train.eval_every_steps": "126",  # the end of the second epoch
}
# Rates are among powers of ten and three times those; a few were tried on seed 0.
ROWS: dict[str, dict[str, str]] = {
    "full": {"rate": "1e-4"},
    "gradual, ulmfit": {
        "name": "gradual", "rate": "3e-4", "stage_length": "0.25", "layers_per_stage": "2",
    },
    "lora": {"rate": "3e-3"},
    "head": {"rate": "1e-2"},
    "last_layers, 1": {"name": "last_layers", "rate": "1e-3", "num_layers": "1"},
    "bitfit": {"rate": "3e-3"},
    "ia3": {"rate": "1e-2"},
    "adapter, pfeiffer": {"name": "adapter", "rate": "1e-3", "placement": "pfeiffer"},
    "prefix": {"rate": "1e-2"},
    "layernorm": {"rate": "3e-3"},
    "embeddings_frozen": {"rate": "1e-4"},
    "first_layers_frozen, 2": {"name": "first_layers_frozen", "rate": "3e-4", "num_layers": "2"},
    "rules, upper attention": {
        "name": "rules", "rate": "1e-3",
        "rules": "layer/[345]/attention/=trainable,pooler|classifier=trainable,.*=frozen",
    },
    "full, layer_decay 0.8": {"name": "full", "rate": "3e-4", "optimizer.layer_decay": "0.8"},
    "adapter, houlsby": {"name": "adapter", "rate": "1e-3", "placement": "houlsby"},
    "lora, all matrices": {"name": "lora", "rate": "1e-3", "targets": r"layer/\d+/.*kernel$"},
    "gradual, chain_thaw": {
        "name": "gradual", "rate": "3e-4", "order": "chain_thaw", "stage_length": "0.25",
        "layers_per_stage": "2",
    },
    "lora, use_dora": {"name": "lora", "rate": "3e-3", "use_dora": "true"},
}  # fmt: skip
SHAPE = (32, 48)  # examples, tokens
TIMED, WARM = 7, 1  # steps
QUIET = Report(Console(quiet=True))


class Step(NamedTuple):
    """A compiled training step of one stage, ready to be timed."""

    program: Any
    state: Any
    frozen: Any
    share: float  # of the run's steps


def main() -> None:
    """Measures what is not there yet and prints all of it: the scores first, then the costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="rows, separated by semicolons")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    run, overrides = parse(run_flags(), rest)
    workdir, seeds = Path(run.workdir).absolute(), list(map(int, arguments.seeds.split(",")))
    if arguments.child:
        part, name = arguments.child.split(":")
        if part == "scores":
            measure_scores(run.config, fields(name, overrides), seeds, folder_of(workdir, name))
        else:
            found = costs(run.config, fields(name, overrides), fields("full", overrides))
            (folder_of(workdir, name) / "costs.json").write_text(json.dumps(found, indent=2) + "\n")
        return
    wanted = [name for name in ROWS if name in (arguments.only or name).split(";")]
    # Seeds share programs, which for the scores are compiled in a third of the time.
    quick = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1"
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(workdir / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for part, name in itertools.product(("scores", "costs"), wanted):
        done = (
            [f"seed{seed}/results.json" for seed in seeds] if part == "scores" else ["costs.json"]
        )
        if not all((folder_of(workdir, name) / file).exists() for file in done):
            print(f"{part} of {name}", flush=True)
            own = {"XLA_FLAGS": quick} if part == "scores" else {}
            command = [sys.executable, __file__, f"--child={part}:{name}", *sys.argv[1:]]
            subprocess.run(command, check=True, env=os.environ | cache | own)
    rows = [read_row(name, seeds, folder_of(workdir, name)) for name in wanted]
    (workdir / "strategies.json").write_text(json.dumps(rows, indent=2) + "\n")
    print_table(rows)


def folder_of(workdir: Path, name: str) -> Path:
    return workdir / "".join(c if c.isalnum() else "_" for c in name)


def read_row(name: str, seeds: list[int], folder: Path) -> dict[str, Any]:
    results = [json.loads((folder / f"seed{seed}/results.json").read_text()) for seed in seeds]
    row: dict[str, Any] = {"name": name, "seeds": seeds}
    for split in ("validation", "test"):
        row[split] = [result["scores"][split]["accuracy"] for result in results]
    return row | json.loads((folder / "costs.json").read_text())


def fields(name: str, overrides: dict[str, str]) -> dict[str, str]:
    """The overrides of a row: the recipe, the row's own, the command line's."""
    own = {"name": name, **ROWS[name]}
    rate = own.pop("rate")
    tuning = {key if "." in key else f"tuning.{key}": value for key, value in own.items()}
    return RECIPE | {"optimizer.learning_rate": rate} | tuning | overrides


def measure_scores(config: str, own: dict[str, str], seeds: list[int], folder: Path) -> None:
    """One run a seed, into `seedN/`."""
    for seed in seeds:
        settings, start = load_config(config, own | {"seed": str(seed)}), time.perf_counter()
        scores = train(settings, folder / f"seed{seed}", QUIET)["scores"]
        shown = "  ".join(f"{split} {part['accuracy']:.4f}" for split, part in scores.items())
        print(f"  seed {seed}: {shown}, {time.perf_counter() - start:.0f} s", flush=True)


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
        "learning_rate": run.settings.optimizer.learning_rate,
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
    count = len(run.tuning.stage_labels)
    starts = [0]
    if isinstance(run.tuning.strategy, Staged):
        starts = [
            stage_start(run.tuning.strategy, i, run.goal.steps_per_epoch) or 0 for i in range(count)
        ]
    ends = itertools.pairwise([*starts, run.goal.num_steps])
    found = []
    for index, (start, end) in enumerate(ends):
        stage = stages.begin(run, index, jax.tree.map(jax.numpy.array, run.params))
        # The whole model: the run itself computes frozen layers once for each example.
        step = make_train_step(run.tuning.apply_fn, run.goal.loss_fn, make_tx(run, index))
        jitted = jax.jit(step, donate_argnums=(0,))
        program = jitted.lower(stage.state, stage.frozen, batch).compile()
        found.append(Step(program, stage.state, stage.frozen, (end - start) / run.goal.num_steps))
    return found


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


def print_table(rows: list[dict[str, Any]]) -> None:
    """Markdown."""
    print(
        "\n| strategy | rate | trainable | FLOPs | memory | step | test accuracy | range |"
        "\n|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        accuracy, spread = statistics.mean(row["test"]), 0.0
        if len(row["test"]) > 1:
            spread = statistics.stdev(row["test"])
        counts = sorted({min(row["trainable"]), max(row["trainable"])})
        cells = [
            row["name"],
            f"{row['learning_rate']:g}",
            " to ".join(f"{count:,}" for count in counts),
            share(row["flops"], row["full_flops"]),
            "unknown" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f} MB",
            f"{1e3 * row['step_seconds']:.0f} ms ({row['time_ratio']:.0%})",
            f"{accuracy:.4f} ± {spread:.4f}",
            f"{min(row['test']):.4f} to {max(row['test']):.4f}",
        ]
        print(f"| {' | '.join(cells)} |")


def share(value: float | None, whole: float | None) -> str:
    return "unknown" if value is None or not whole else f"{value / whole:.0%}"


if __name__ == "__main__":
    main()
