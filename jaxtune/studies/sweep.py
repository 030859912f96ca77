"""A sweep: trials one after the other, in one process, until so many are done; then the best."""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.core.units import human_seconds
from jaxtune.io.atomic import write_atomic
from jaxtune.io.json_files import read_json_object
from jaxtune.run.console import Report
from jaxtune.run.own_goals import metric_of, scored
from jaxtune.run.signals import TIME_IS_UP, InterruptedRunError
from jaxtune.run.train import train
from jaxtune.run.workdir import hold_workdir
from jaxtune.settings import Settings
from jaxtune.settings.dicts import differences, to_dict, to_json
from jaxtune.studies import space as spaces
from jaxtune.studies.groups import Spread, spread
from jaxtune.studies.ledger import Ledger, Trial, drop_study
from jaxtune.studies.space import Space
from jaxtune.studies.trials import PrunedError, Trainer
from jaxtune.tasks.registry import find_task

_LARGE = ("model", "adapter", "checkpoints")


class Plan(NamedTuple):
    """What is sought.

    Attributes:
      settings: that trials begin with.
      space: what they differ in.
      trials: how many.
      seeds: with so many the best is trained again; 0 for none.
    """

    settings: Settings
    space: Space
    trials: int
    seeds: int = 0


def sweep(plan: Plan, folder: Path, report: Report, tokens: Path | None = None) -> dict[str, Any]:
    """Runs the trials that are left, or goes on with the one that was interrupted.

    Args:
      plan: what is sought. A sweep that goes on may have more trials and seeds.
      folder: gets `sweep.json`, `study.jsonl`, `trials/`, `seeds/`, `best.json` and, at the end,
        `results.json`.
      report: where a person reads along.
      tokens: a folder that keeps tokens from run to run; None keeps none.

    Returns:
      What `results.json` holds.

    Raises:
      UserError: bad input, a folder of another sweep, or trials of which none has a score.
      InterruptedRunError: a signal came, or the time is up; the same sweep goes on.
    """
    start, limit = time.perf_counter(), plan.settings.train.max_seconds
    until = None if limit is None else start + limit
    task = scored(find_task(plan.settings.task), plan.settings.train.scores)
    metric = metric_of(task, plan.settings.train.best_metric)
    if task.scores.of_data is not None and plan.settings.train.best_metric is None:
        raise UserError(
            f"config.train.best_metric is None, but the score of {task.name} follows from its rows,"
            f" and trials are compared by one: expected one of"
            f" {', '.join(task.scores.higher_is_better)}."
        )
    maximize = task.scores.higher_is_better[metric]
    with hold_workdir(folder):
        _claim(folder, plan)
        ledger = Ledger(folder, plan.settings, plan.space, maximize)
        trainer = Trainer(report, tokens, plan.settings.activation_cache.max_memory_bytes)
        while sum(t.state != "running" for t in ledger.trials()) < plan.trials:
            _try(plan, folder, ledger, trainer, metric, _timed(plan.settings, until), report)
        best = ledger.best()
        if best is None:
            reasons = [t.notes.get("reason", "") for t in ledger.trials()]
            raise UserError(f"no trial has a score; the last one: {reasons[-1]}")
        settings = spaces.with_values(plan.settings, best.words)
        write_atomic(folder / "best.json", to_json(settings))
        over_seeds = _over_seeds(plan.seeds, settings, folder, until, report, tokens)
        results = _results(plan, ledger.trials(), best, metric, over_seeds)
        write_atomic(folder / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def show(results: dict[str, Any], folder: Path, report: Report) -> None:
    """Writes the trials, the best first, and the best settings, for a person."""
    trials, metric = results["trials"], results["metric"]
    order = {"complete": 0, "pruned": 1, "failed": 2}
    sign = -1.0 if results["maximize"] else 1.0

    def rank(row: dict[str, Any]) -> tuple[int, float]:
        return order.get(row["state"], 3), sign * (row["score"] or 0.0)

    names = list(results["space"])
    header = ["trial", *names, f"validation {metric}", "steps", "time", ""]
    rows = [
        [
            str(row["number"]),
            *(_short(row["settings"].get(name, "")) for name in names),
            "-" if row["score"] is None else f"{row['score']:.4f}",
            str(row.get("steps", "-")),
            human_seconds(row["seconds"]) if "seconds" in row else "-",
            "" if row["state"] == "complete" else row["state"],
        ]
        for row in sorted(trials, key=rank)
    ]
    report.grid("trials", header, rows)
    flags = " ".join(f"--config.{k}={v}" for k, v in results["best"]["words"].items())
    report.table(
        "best",
        [
            (
                "trial",
                f"{results['best']['number']}, validation {metric} {results['best']['score']:.4f}",
            ),
            ("settings", flags),
            ("config", folder / "best.json"),
            ("model", _trial_folder(folder, results["best"]["number"]) / "model"),
            *_seed_rows(results["seeds"], metric),
        ],
    )


def _try(
    plan: Plan,
    folder: Path,
    ledger: Ledger,
    trainer: Trainer,
    metric: str,
    settings: Settings,
    report: Report,
) -> None:
    """One trial, to its end."""
    number, words = ledger.next()
    workdir, start = _trial_folder(folder, number), time.perf_counter()
    told = "  ".join(f"{name.rpartition('.')[2]} {_short(word)}" for name, word in words.items())
    head = f"trial {number + 1} of {plan.trials}  {told}"

    def seconds() -> float:
        return time.perf_counter() - start

    try:
        results = trainer(spaces.with_values(settings, words), workdir, ledger.judge)
        score = results["scores"]["validation"].get(metric)
        if score is None:
            ledger.fail(reason=f"its {metric} is undefined", seconds=seconds())
            end = "undefined"
        else:
            ledger.complete(score, steps=results["steps"], seconds=results["seconds"])
            end = f"{metric} {score:.4f}"
    except PrunedError as pruned:
        ledger.prune(steps=pruned.step, seconds=seconds(), reason=str(pruned))
        end = f"ended early, {pruned}"
    except UserError as error:
        if not (workdir / "metrics.jsonl").exists() and not ledger.best():
            shutil.rmtree(workdir, ignore_errors=True)
            raise  # before the first step: each trial would end so
        ledger.fail(reason=str(error), seconds=seconds())
        end = f"failed: {error}"
    report.line(f"{head}  {end}  {human_seconds(seconds())}")
    _clear(folder, ledger)


def _clear(folder: Path, ledger: Ledger) -> None:
    """Of the trials that are done, only the best keeps its model."""
    best = ledger.best()
    for trial in ledger.trials():
        if trial.state != "running":
            large = ("checkpoints",) if trial == best else _LARGE
            for name in large:
                shutil.rmtree(_trial_folder(folder, trial.number) / name, ignore_errors=True)


def _over_seeds(
    count: int,
    settings: Settings,
    folder: Path,
    until: float | None,
    report: Report,
    tokens: Path | None,
) -> dict[str, Any] | None:
    """Trains the best settings with several seeds, test rows included; their scores."""
    if not count:
        return None
    found = []
    for seed in range(settings.seed, settings.seed + count):
        workdir = folder / "seeds" / _name(settings, seed)
        if not (workdir / "results.json").is_file():
            timed = _timed(dataclasses.replace(settings, seed=seed), until)
            train(timed, workdir, Report(quiet=True), tokens)
        for name in _LARGE:
            shutil.rmtree(workdir / name, ignore_errors=True)
        results = read_json_object(workdir / "results.json")
        report.line(f"seed {seed}  {_scores_told(results)}")
        found.append(results["scores"])
    splits = {split: list(part) for split, part in found[0].items()}
    return {
        split: {name: spread([one[split].get(name) for one in found])._asdict() for name in names}
        for split, names in splits.items()
    }


def _scores_told(results: dict[str, Any]) -> str:
    metric = results["best_metric"]
    values = {split: part.get(metric) for split, part in results["scores"].items()}
    return "  ".join(
        f"{split} {metric} {value:.4f}" for split, value in values.items() if value is not None
    )


def _name(settings: Settings, seed: int) -> str:
    """Of a run with a seed: more trials may find other settings to be the best."""
    import hashlib

    text = json.dumps(to_dict(settings) | {"seed": 0, "train": None}, sort_keys=True, default=str)
    train = {k: v for k, v in to_dict(settings.train).items() if k != "max_seconds"}
    digest = hashlib.sha256((text + json.dumps(train, sort_keys=True)).encode()).hexdigest()
    return f"{digest[:8]}-{seed}"


def _timed(settings: Settings, until: float | None) -> Settings:
    """The settings with the seconds that are left.

    Raises:
      InterruptedRunError: none are.
    """
    if until is None:
        return settings
    left = until - time.perf_counter()
    if left <= 0:
        raise InterruptedRunError(TIME_IS_UP, 0)
    train_settings = dataclasses.replace(settings.train, max_seconds=left)
    return dataclasses.replace(settings, train=train_settings)


def _claim(folder: Path, plan: Plan) -> None:
    """Takes the folder for this sweep.

    Raises:
      UserError: it holds another sweep, or a run.
    """
    settings = json.loads(to_json(plan.settings))
    settings["train"]["max_seconds"] = None
    own = json.loads(json.dumps({"config": settings, "space": spaces.describe(plan.space)}))
    file = folder / "sweep.json"
    if (folder / "config.json").exists():
        raise UserError(f"{folder} holds a run, not a sweep. Use another --workdir.")
    tried = folder / "trials"
    if not file.exists() or not (tried.is_dir() and any(tried.iterdir())):
        drop_study(folder)
        write_atomic(file, json.dumps(own, indent=2) + "\n")
        return
    changed = differences(read_json_object(file, "Use another --workdir."), own)
    if changed:
        raise UserError(
            f"{folder} holds another sweep: {'; '.join(changed[:5])}. Use another --workdir, or the"
            " same config and --sweep flags to go on."
        )


def _results(
    plan: Plan, trials: Sequence[Trial], best: Trial, metric: str, seeds: dict[str, Any] | None
) -> dict[str, Any]:
    task = scored(find_task(plan.settings.task), plan.settings.train.scores)

    def row(trial: Trial) -> dict[str, Any]:
        values = {
            name: spaces.value_of(spaces.with_values(plan.settings, {name: word}), name)
            for name, word in trial.words.items()
        }
        told = {"number": trial.number, "state": trial.state, "score": trial.score}
        return told | {"settings": values, "words": dict(trial.words)} | dict(trial.notes)

    return {
        "metric": metric,
        "maximize": task.scores.higher_is_better[metric],
        "space": spaces.describe(plan.space),
        "trials": [row(trial) for trial in trials],
        "best": row(best),
        "seeds": seeds,
    }


def _seed_rows(seeds: dict[str, Any] | None, metric: str) -> list[tuple[str, str]]:
    rows = []
    for split, part in (seeds or {}).items():
        found = Spread(**part[metric])
        if found.mean is not None:
            more = "" if found.deviation is None else f" ± {found.deviation:.4f}"
            rows.append((f"{split} {metric}", f"{found.mean:.4f}{more} over {found.known} seeds"))
    return rows


def _trial_folder(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:03d}"


def _short(word: Any) -> str:
    """A value as a person reads it."""
    try:
        return word if isinstance(word, str) and "." not in word else f"{float(word):.3g}"
    except (TypeError, ValueError):
        return str(word)
