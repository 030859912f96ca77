"""A whole run: prepare, train, evaluate, export; an interrupted one goes on where it was."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxtune.core.errors import UserError
from jaxtune.data.sources.table import Table
from jaxtune.export import adapter_folder
from jaxtune.export.adapter_folder import Product
from jaxtune.io.atomic import write_atomic
from jaxtune.parallel import multihost
from jaxtune.run import stages, summary
from jaxtune.run.checkpoint import Checkpoints
from jaxtune.run.console import Report
from jaxtune.run.evaluate import make_scorer
from jaxtune.run.hooks import Hook
from jaxtune.run.loop import Fit, fit
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run
from jaxtune.run.trackers import JsonLines, Tracker
from jaxtune.run.workdir import check_workdir, claim_workdir
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict, to_json

_CARD = (
    *("text_columns", "image_column", "label_column", "label_columns", "max_length"),
    *("label_lists", "label_separator"),
    *("mask_probability", "doc_stride", "max_answer_length", "n_best", "no_answer_threshold"),
    "allow_no_answer",
)
"""The settings of the data that jaxtune.json keeps for prediction."""


def train(
    settings: Settings,
    workdir: Path,
    report: Report,
    token_cache_dir: Path | None = None,
    *,
    tables: Mapping[str, Table] | None = None,
    hooks: Sequence[Hook] = (),
    trackers: Sequence[Tracker] = (),
) -> dict[str, Any]:
    """Trains, evaluates and exports one run; an interrupted one goes on where it was.

    Args:
      settings: validated.
      workdir: gets `config.json`, `metrics.jsonl`, `results.json`, `checkpoints/`, `model/` and,
        with LoRA, `adapter/`.
      report: where a person reads along.
      token_cache_dir: a folder that keeps tokens from run to run; None keeps none.
      tables: rows by split, in the place of those that the settings name.
      hooks: called between steps, after the loop's own.
      trackers: take the numbers of the run, beside metrics.jsonl.

    Returns:
      What `results.json` holds.

    Raises:
      UserError: bad input, or a workdir that holds another run.
      InterruptedRunError: a signal came; the checkpoint is written.
    """
    start = time.perf_counter()
    check_workdir(workdir, settings)
    run = prepare(settings, report, token_cache_dir, tables)
    _claim(workdir, run)
    report.table("jaxtune", summary.start_rows(run, workdir))
    summary.show_audit(run, report)
    scorer = make_scorer(run, report)
    fitted, best = _fit(run, workdir, report, scorer, hooks, trackers)
    params, progress = stages.assemble(best), fitted.last.progress
    scores = {"validation": dict(progress.best_scores)}
    if "test" in run.data.examples:
        scores["test"] = scorer(params, "test")
    params = multihost.on_host(params)
    if multihost.is_first():
        adapter_folder.write(workdir, product_of(run), params, _card(run), report.line)
    results = summary.results(run, fitted, scores, scorer.step, time.perf_counter() - start)
    if multihost.is_first():
        write_atomic(workdir / "results.json", json.dumps(results, indent=2) + "\n")
        report.table("done", summary.end_rows(results, workdir))
    multihost.wait("written")
    return results


def _claim(workdir: Path, run: Run) -> None:
    """Takes the workdir for this run; all processes must have the same one."""
    multihost.check_same("the config", json.loads(to_json(run.settings)))
    if multihost.is_first():
        claim_workdir(workdir, run.settings)
    multihost.wait("claimed")
    if not (workdir / "config.json").exists():
        raise UserError(
            f"process {jax.process_index()} finds no config.json in --workdir={workdir}, which"
            " process 0 has written: expected a folder that all processes share."
        )


def _fit(
    run: Run,
    workdir: Path,
    report: Report,
    scorer: Any,
    hooks: Sequence[Hook],
    trackers: Sequence[Tracker],
) -> tuple[Fit, stages.Stage]:
    """What the loop brings back, and the stage at the best step."""
    model = run.settings.model
    base = {"model": model.path, "sha256": str(model.sha256)}
    first = multihost.is_first()  # which alone writes
    trackers = (JsonLines(workdir / "metrics.jsonl"), *trackers) if first else ()
    with (
        Checkpoints(workdir / "checkpoints", base) as checkpoints,
        contextlib.ExitStack() as stack,
    ):
        for tracker in trackers:
            stack.callback(tracker.finish)
            tracker.start(json.loads(to_json(run.settings)), checkpoints.latest_step or 0)
        fitted = fit(run, workdir, report, checkpoints, scorer, trackers, hooks)
        best, best_step = fitted.last.stage, fitted.last.progress.best_step
        if best_step != fitted.last.step:
            best, _ = stages.restore(run, checkpoints, best_step)
    return fitted, best


def product_of(run: Run) -> Product:
    """What the export writes, besides the parameters."""
    return Product(
        strategy=run.tuning.strategy,
        labels=run.tuning.stage_labels[-1],
        pretrained=run.pretrained,
        processor=run.data.processor,
        task=run.task,
        base=run.settings.model,
        tuning=run.settings.tuning,
        frozen_dtype=run.settings.precision.frozen_dtype,
    )


def _card(run: Run) -> dict[str, Any]:
    data = to_dict(run.settings.data)
    return {
        "task": run.task.name,
        **{name: data[name] for name in _CARD},
        "base_model": run.settings.model.path,
        "base_sha256": run.settings.model.sha256,
    }
