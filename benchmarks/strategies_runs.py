"""The rate of a strategy for a task, as the finder has it, and the runs of its seeds."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from strategies_costs import QUIET, stage_shares
from strategies_results import Record, Results
from strategies_rows import TASKS, digest, folder_name, settings_of

from jaxtune.analysis.audit import Updates, count_flops
from jaxtune.core import trees
from jaxtune.run import predictions_folder
from jaxtune.run.config import load_config
from jaxtune.run.lr_find import lr_find
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run
from jaxtune.run.train import train
from jaxtune.tasks.calibration import expected_calibration_error
from jaxtune.tasks.probabilities import softmax
from jaxtune.tuning import partition

SWEEPS = (60, 120, 240)
"""Steps of the finder; the longer ones only where the one before it suggests nothing."""


RULES = ("suggestion", "minimum_divided_by_10")
"""Of the finder; the lower rate is taken, as in so short a sweep either can be far too high: the
first says 1.4e-3 for `full` on classification, where the accuracy is then 0.62, and the second
3.8e-3 on pairs, where nothing is learnt."""


class Cell(NamedTuple):
    """A task and a strategy.

    Attributes:
      task: by name.
      strategy: by name.
      settings: overrides of its runs, without rate and seed.
      swept: those that the finder looks at.
      workdir: of the cell alone.
      tokens: a folder that keeps tokens from run to run.
    """

    task: str
    strategy: str
    settings: dict[str, str]
    swept: dict[str, str]
    workdir: Path
    tokens: Path

    @property
    def names(self) -> dict[str, str]:
        """What all of its records begin with."""
        return {"task": self.task, "strategy": self.strategy, "recipe": digest(self.settings)}


def cell_of(task: str, strategy: str, overrides: dict[str, str], workdir: Path) -> Cell:
    """A cell, of which the finder looks at the strategy itself.

    Of one in stages it would see the first alone, the head, whose rates make all layers diverge.
    There it looks at `full`, which is what the last stage trains.
    """
    settings = settings_of(task, strategy, overrides)
    staged = settings["tuning.name"] == "gradual"
    swept = settings_of(task, "full", overrides) if staged else settings
    folder = workdir / task / folder_name(strategy)
    return Cell(task, strategy, settings, swept, folder, workdir / "tokens")


def missing(cell: Cell, seeds: Sequence[int], results: Results) -> list[int]:
    """The seeds that are still to be run; none where the finder found no rate.

    Raises:
      SystemExit: the file has records of another recipe.
    """
    ours = {"task": cell.task, "strategy": cell.strategy}
    rates, scores = (results.find(kind, **ours) for kind in ("rate", "score"))
    if any(record["recipe"] != cell.names["recipe"] for record in (*rates, *scores)):
        raise SystemExit(
            f"{results.file} holds {cell.strategy} of {cell.task} by other settings than those of"
            " this command: use another --results and --workdir."
        )
    if rates and rates[0]["rate"] is None:
        return []
    return [seed for seed in seeds if seed not in {record["seed"] for record in scores}]


def measure(cell: Cell, seeds: Sequence[int], results: Results) -> None:
    """Finds the rate where it is not known, and runs the seeds that are missing."""
    if not results.find("rate", cell.task, strategy=cell.strategy):
        results.add(find_rate(cell))
    (found,) = results.find("rate", cell.task, strategy=cell.strategy)
    for seed in missing(cell, seeds, results):
        results.add(run_seed(cell, found["rate"], seed))


def find_rate(cell: Cell) -> Record:
    """The suggestion of the finder, with what the strategy trains and what a run of it costs."""
    start = time.perf_counter()
    settings = load_config(TASKS[cell.task].config, cell.settings | {"seed": "0"})
    cell.tokens.mkdir(parents=True, exist_ok=True)
    run = prepare(settings, QUIET, cell.tokens)
    record = {"kind": "rate", **cell.names} | cost_of_run(run)
    del run
    found, steps = sweep(cell)
    rates = {name: found[name] and float(f"{found[name]:.3g}") for name in RULES}
    record |= {"rate": None if None in rates.values() else min(rates.values()), "rules": rates}
    record |= {"reason": found["reason"], "sweep_steps": steps, "date": time.strftime("%Y-%m-%d")}
    print(f"  rate {record['rate']}, {time.perf_counter() - start:.0f} s", flush=True)
    return record


def sweep(cell: Cell) -> tuple[dict[str, Any], int]:
    """What the finder says, in so many steps as it takes to say something."""
    found, steps = {}, 0
    for steps in SWEEPS:
        more = {"seed": "0", "train.num_steps": str(steps)}
        settings = load_config(TASKS[cell.task].config, cell.swept | more)
        found = lr_find(settings, cell.workdir, QUIET, cell.tokens)
        if found["suggestion"] is not None:
            break
    return found, steps


def cost_of_run(run: Run) -> dict[str, Any]:
    """Trained parameters by stage, and operations of all steps, of the run and of a `full` one.

    Each step is taken to compute everything anew, and to have a batch of the largest shape.
    """
    shapes: Any = jax.eval_shape(lambda params: params, run.params)
    chosen, model, read = run.settings.optimizer, run.pretrained, run.task.loss.read
    updates = Updates(
        chosen.learning_rate, chosen.weight_decay, run.goal.scaler, run.tuning.multipliers
    )
    adapted = run.tuning.apply_fn is not model.apply_fn
    base: Any = (read(model.apply_fn), model.design.shapes) if adapted else None
    apply_fn = read(run.tuning.apply_fn)
    batch: Any = run.data.stream.empty()
    trainable, total, full = [], 0.0, None
    for labels, share in zip(run.tuning.stage_labels, stage_shares(run), strict=True):
        trainable.append(trees.count(partition.partition(shapes, labels)[0]))
        own, full = count_flops(apply_fn, run.goal.loss_fn, shapes, labels, batch, updates, base)
        total += share * run.goal.num_steps * (own or float("nan"))
    whole = None if full is None else full * run.goal.num_steps
    return {"trainable": trainable, "flops": total if whole else None, "full_flops": whole}


def run_seed(cell: Cell, rate: float, seed: int) -> Record:
    """Trains and scores; the folder of the run, which has a checkpoint, is removed after."""
    start, task = time.perf_counter(), TASKS[cell.task]
    more = {"optimizer.learning_rate": str(rate), "seed": str(seed)}
    folder = cell.workdir / f"seed{seed}"
    found = train(load_config(task.config, cell.settings | more), folder, QUIET, cell.tokens)
    record = {
        **{"kind": "score", **cell.names, "seed": seed, "rate": rate},
        **{"metric": task.metric, "split": task.split},
        "score": found["scores"][task.split][task.metric],
        "ece": calibration_error(folder, task.split),
        "scores": found["scores"][task.split],
        **{"steps": found["steps"], "trainable": found["trainable_parameters"]},
        **{"device": found["device"], "jax": found["versions"]["jax"]},
        "date": time.strftime("%Y-%m-%d"),
    }
    shutil.rmtree(folder)
    error = "" if record["ece"] is None else f", ECE {record['ece']:.3f}"
    print(
        f"  seed {seed}: {task.metric} {record['score']:.4f}{error},"
        f" {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    return record


def calibration_error(folder: Path, split: str) -> float | None:
    """That of the probabilities as they are, before any temperature; None without classes."""
    kept = predictions_folder.read(folder)
    if kept is None or kept.split != split or "logits" not in kept.arrays:
        return None
    arrays = kept.arrays
    return expected_calibration_error(softmax(arrays["logits"].astype("f8")), arrays["labels"])
