"""A student of half the layers, with its teacher and without: scores and speed.

    python benchmarks/distillation.py --config=configs/agnews.py --workdir=runs/distillation \
        --config.model.path=MINILM --config.data.path=AG_NEWS

The teacher is the model fine-tuned by the recipe; the students are its layers 0, 2 and 4 (of six),
fine-tuned on the same rows from the pretrained weights: by labels alone; by labels and the
teacher's softened outputs; and with its hidden states too. Three seeds each, all with the teacher
of the first. Speed: seconds of each run by the clock of results.json, the teacher's pass over the
training rows among them and by itself, and test rows predicted a second; one process for each run.
What is done is kept in the workdir, so that the same command goes on where it was stopped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxtune.run import lesson
from jaxtune.run.arguments import parse, run_flags
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.predictions import outputs_of
from jaxtune.run.prepare import prepare
from jaxtune.run.saved import open_saved
from jaxtune.run.train import train

RECIPE = {
    "data.max_eval_examples": "2000",
    "data.validation_size": "500",
    "data.max_length": "64",
    "optimizer.learning_rate": "1e-4",
    "train.batch_size": "32",
    "train.num_epochs": "3",
}
STUDENT = {"model.layers": "every 2"}
TEACHER = "teacher"
ROWS: dict[str, dict[str, str]] = {
    TEACHER: {},
    "student, labels alone": STUDENT,
    "student, outputs": STUDENT | {"distillation.alpha": "0.7", "distillation.temperature": "2"},
    "student, outputs and states": STUDENT
    | {
        **{"distillation.alpha": "0.7", "distillation.temperature": "2"},
        "distillation.hidden_weight": "1",
    },
}
QUIET = Report(quiet=True)
_TIMES = 3  # predictions; the median is told


def main() -> None:
    """Runs what is not there yet, and prints all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    run, overrides = parse(run_flags(), rest)
    workdir, seeds = Path(run.workdir).absolute(), list(map(int, arguments.seeds.split(",")))
    if arguments.child:
        name, _, seed = arguments.child.rpartition(":")
        measure(run.config, name, int(seed), seeds[0], overrides, workdir)
        return
    for name in ROWS:
        for seed in seeds:
            if not (folder_of(workdir, name, seed) / "measured.json").exists():
                print(f"{name}, seed {seed}", flush=True)
                command = [sys.executable, __file__, f"--child={name}:{seed}", *sys.argv[1:]]
                subprocess.run(command, check=True, env=os.environ)
    print_table(workdir, seeds)


def folder_of(workdir: Path, name: str, seed: int) -> Path:
    return workdir / "".join(c if c.isalnum() else "_" for c in name) / f"seed{seed}"


def fields(
    name: str, seed: int, first: int, overrides: dict[str, str], workdir: Path
) -> dict[str, str]:
    """The overrides of a run: the recipe, the row's own, the command line's, and the teacher."""
    own = RECIPE | ROWS[name] | {"seed": str(seed)} | overrides
    if any(field.startswith("distillation.") for field in ROWS[name]):
        own["distillation.teacher"] = str(folder_of(workdir, TEACHER, first) / "model")
    return own


def measure(
    config: str, name: str, seed: int, first: int, overrides: dict[str, str], workdir: Path
) -> None:
    """Trains one run and writes what it took."""
    folder, own = (
        folder_of(workdir, name, seed),
        fields(name, seed, first, overrides, workdir),
    )
    settings, taught = load_config(config, own), []
    run_teacher = lesson._run_teacher

    def timed(*args: Any) -> None:
        start = time.perf_counter()
        run_teacher(*args)
        taught.append(time.perf_counter() - start)

    lesson._run_teacher = timed
    results = train(settings, folder, Report())
    found = {
        "test": results["scores"]["test"]["accuracy"],
        "validation": results["scores"]["validation"]["accuracy"],
        "step_flops": results.get("step_flops"),
        "seconds": results["seconds"],
        "teacher_seconds": sum(taught),
        "train_examples_per_second": results.get("examples_per_second"),
        "predicted_per_second": predicted(folder / "model", settings),
        "versions": {package: version(package) for package in ("jax", "jaxlib")},
    }
    (folder / "measured.json").write_text(json.dumps(found, indent=2) + "\n")


def predicted(folder: Path, settings: Any) -> float:
    """Test rows a second, programs compiled."""
    saved = open_saved(folder, settings.precision.compute_dtype, settings.data)
    examples = prepare(settings, QUIET).data.examples["test"]
    size, seconds = settings.train.eval_batch_size, []
    for _ in range(1 + _TIMES):
        start = time.perf_counter()
        outputs_of(saved, examples, size, QUIET, "test")
        seconds.append(time.perf_counter() - start)
    return len(examples.lengths) / statistics.median(seconds[1:])


def print_table(workdir: Path, seeds: list[int]) -> None:
    """One line a row, means over the seeds."""
    cores = f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}"
    print(f"| {cores}, seeds {seeds} | test accuracy | teacher s | train s | rows/s predicted |")
    print("|---|---|---|---|---|")
    for name in ROWS:
        found = [
            json.loads((folder_of(workdir, name, seed) / "measured.json").read_text())
            for seed in seeds
        ]
        test = [one["test"] for one in found]
        spread = f" ± {statistics.stdev(test):.4f}" if len(test) > 1 else ""
        cells = [f"{statistics.mean(test):.4f}{spread}"]
        cells += [
            f"{statistics.mean(one[key] for one in found):.1f}"
            for key in ("teacher_seconds", "seconds", "predicted_per_second")
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
