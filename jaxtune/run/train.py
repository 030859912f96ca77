"""A whole run: prepare, train, evaluate, export; an interrupted one goes on where it was."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.data.sources.table import Table
from jaxtune.export import adapter_folder
from jaxtune.export.adapter_folder import Product
from jaxtune.io.atomic import write_atomic
from jaxtune.io.json_files import read_json_object
from jaxtune.models.pooling import EMBEDDING
from jaxtune.parallel import multihost
from jaxtune.run import keeper, services, signals, stages, summary
from jaxtune.run.at_best import AtBest
from jaxtune.run.calibrate import calibration_fields, calibration_of
from jaxtune.run.checkpoint import Checkpoints, DamagedCheckpointError, newest_step
from jaxtune.run.console import Report
from jaxtune.run.fitted import as_trained
from jaxtune.run.hooks import Hook
from jaxtune.run.loop import Around, Fit, first, fit
from jaxtune.run.own_goals import hooks_of
from jaxtune.run.plan import check_length
from jaxtune.run.prepare import prepare
from jaxtune.run.progress import is_over
from jaxtune.run.scorer import Scorer, make_scorer
from jaxtune.run.sentence_models import prompts_of
from jaxtune.run.setup import Run
from jaxtune.run.trackers import JsonLines, Tracker
from jaxtune.run.workdir import check_workdir, claim_workdir, hold_workdir, kept_settings
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict, to_json
from jaxtune.tasks.calibration import Calibration

_CARD = (
    *("text_columns", "image_column", "label_column", "label_columns", "group_column"),
    "no_label",
    "max_length",
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
      workdir: gets `config.json`, `metrics.jsonl`, `results.json`, `checkpoints/`, `model/`,
        `predictions/`, with LoRA `adapter/`, and what the trackers that the settings name write.
      report: where a person reads along.
      token_cache_dir: a folder that keeps tokens from run to run; None keeps none.
      tables: rows by split, in the place of those that the settings name.
      hooks: called between steps, after the loop's own.
      trackers: take the numbers of the run, beside metrics.jsonl and those of the settings.

    Returns:
      What `results.json` holds.

    Raises:
      UserError: bad input, or a workdir that holds another run.
      InterruptedRunError: a signal came; the checkpoint is written.
    """
    make = partial(prepare, settings, report, token_cache_dir, tables)
    return train_prepared(make, settings, workdir, report, hooks, trackers)


def train_prepared(
    make: Callable[[], Run],
    settings: Settings,
    workdir: Path,
    report: Report,
    hooks: Sequence[Hook] = (),
    trackers: Sequence[Tracker] = (),
) -> dict[str, Any]:
    """As `train`, of a run that `make` prepares once the workdir is held."""
    start = time.perf_counter()
    services.chosen(settings.train.trackers)  # or one is missing
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals.never_ended_by_save())
        if multihost.is_first():  # which alone writes
            stack.enter_context(hold_workdir(workdir))
        check_workdir(workdir, settings)
        run = make()
        _claim(workdir, run, report)
        report.table("jaxtune", summary.start_rows(run, workdir))
        done = finished(run, workdir)
        if done is not None:
            report.table("done before", summary.end_rows(done, workdir))
            return done
        return _train(run, workdir, report, start, hooks, trackers)


def _train(
    run: Run,
    workdir: Path,
    report: Report,
    start: float,
    hooks: Sequence[Hook],
    trackers: Sequence[Tracker],
) -> dict[str, Any]:
    """As `train`, once the run is prepared; `start` is the time at which that began."""
    summary.show_groups(run, report)
    cost = summary.Cost(run, report)
    kept = AtBest(run, run.data.held.split, keeper.keeping(run, report.line))
    logits = AtBest(run, "validation", lambda outputs, step: outputs)
    seen = (kept, logits) if run.task.output.ranks else (kept,)
    scorer = make_scorer(run, report, [one.see for one in seen])
    seconds = run.settings.train.max_seconds
    until = None if seconds is None else start + seconds
    told = _trackers(run, workdir, report, trackers)
    own = hooks_of(run.settings.train.hooks)
    around = Around(told, (*(one.hook for one in seen), *hooks, *own, cost.hook), until)
    with contextlib.ExitStack() as stack:
        fitted, params = _fit(run, workdir, report, scorer, around, stack)
        params, scorer = scorer.fit(params), scorer._replace(fit=as_trained)
        progress = fitted.last.progress
        scores = {"validation": dict(progress.best_scores)}
        if "test" in run.data.examples:
            scores["test"] = scorer(params, "test")
        for tracker in told:
            tracker.log(fitted.last.step, _end_row(progress.best_step, scores))
        shown, *found = [one.finish(progress.best_step, params, scorer) for one in seen]
        calibration = calibration_of(run, found[0]) if found else None
        cost.finish()
        params = multihost.on_host(params)
        if multihost.is_first():
            card = _card(run, calibration)
            adapter_folder.write(workdir, product_of(run), params, card, report.line)
            keeper.write(workdir, shown, report.line)
    results = summary.results(run, fitted, scores, scorer.step, time.perf_counter() - start)
    results |= dict(zip(("step_flops", "full_step_flops"), cost.flops, strict=True))
    results |= calibration_fields(calibration)
    if multihost.is_first():
        write_atomic(workdir / "results.json", json.dumps(results, indent=2) + "\n")
        report.table("done", summary.end_rows(results, workdir))
    multihost.wait("written")
    return results


def _claim(workdir: Path, run: Run, report: Report) -> None:
    """Takes the workdir for this run; all processes must have the same one."""
    multihost.check_same("the config", json.loads(to_json(run.settings)))
    _check_length(workdir, run)
    multihost.wait("checked")  # before the old config is written over
    if multihost.is_first():
        for changed in claim_workdir(workdir, run.settings):
            report.line(f"going on with another setting: {changed}")
    multihost.wait("claimed")
    if not (workdir / "config.json").exists():
        raise UserError(
            f"process {jax.process_index()} finds no config.json in --workdir={workdir}, which"
            " process 0 has written: expected a folder that all processes share."
        )


def _check_length(workdir: Path, run: Run) -> None:
    """Refuses a length that the steps in a workdir do not allow."""
    old, taken = kept_settings(workdir), newest_step(workdir / "checkpoints")
    if not old or not taken:
        return
    goal, length = run.goal, old.get("train", {})
    before = length.get("num_steps") or length.get("num_epochs", 0) * goal.steps_per_epoch
    check_length(run.settings.optimizer, taken, before, goal.num_steps, goal.schedule)


def _trackers(
    run: Run, workdir: Path, report: Report, trackers: Sequence[Tracker]
) -> Sequence[Tracker]:
    """Those of a run, not started yet; of several processes, the first alone has any."""
    if not multihost.is_first():
        return ()
    own = services.make_trackers(run.settings.train.trackers, workdir, report.line)
    return (JsonLines(workdir / "metrics.jsonl"), *own, *trackers)


def _end_row(best_step: int, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What trackers are told last: the scores of what is exported."""
    named = {f"end/{k}/{name}": v for k, part in scores.items() for name, v in part.items()}
    return {"end/best_step": best_step} | named


def _fit(
    run: Run,
    workdir: Path,
    report: Report,
    scorer: Scorer,
    around: Around,
    stack: contextlib.ExitStack,
) -> tuple[Fit, Params]:
    """What the loop brings back, and all parameters at the best step.

    The trackers are started, and finished where the stack is closed.
    """
    if multihost.is_first():  # which alone writes
        (workdir / "results.json").unlink(missing_ok=True)  # of a shorter run
    with Checkpoints(workdir / "checkpoints", _base(run)) as checkpoints:
        begin = first(run, workdir, report, checkpoints)
        for tracker in around.trackers:
            stack.callback(tracker.finish)
            tracker.start(json.loads(to_json(run.settings)), begin.step)
        fitted = fit(begin, workdir, report, checkpoints, scorer, around)
        return _best(fitted, report, checkpoints, scorer)


def _best(
    fitted: Fit, report: Report, checkpoints: Checkpoints, scorer: Scorer
) -> tuple[Fit, Params]:
    """All parameters to score at the best step; the last ones where that is damaged or gone.

    The moments of the last step, and parameters that others take the place of, are freed.
    """
    last, progress = fitted.last, fitted.last.progress
    trees.free(last.stage.state.opt_state)
    if progress.best_step == last.step:
        return fitted, last.scored_params
    reason = "no evaluation is known"
    if progress.best_step >= 0:
        stage = last.stage  # whose parameters lie in parts while others are read beside them
        parts = stages.fold(last.run, stage.state.params)
        try:
            best = stages.restore_params(last.run, checkpoints, progress.best_step)
        except DamagedCheckpointError as error:
            reason = str(error)
            state = stage.state._replace(params=stages.unfold(last.run, parts))
            last = last._replace(stage=stage._replace(state=state))
        else:
            trees.free((parts, stage.state.average))
            return fitted, best
    report.line(f"the last step takes the place of the best: {reason}")
    params = last.scored_params
    progress = progress._replace(best_step=last.step, best_scores=scorer(params, "validation"))
    return fitted._replace(last=last._replace(progress=progress)), params


def finished(run: Run, workdir: Path) -> dict[str, Any] | None:
    """What results.json holds where the run in a workdir has come to its end; None elsewhere."""
    file = workdir / "results.json"
    if not file.is_file() or not (workdir / "model").is_dir():
        return None
    with contextlib.suppress(UserError):  # a damaged file is written anew
        found, step = read_json_object(file), newest_step(workdir / "checkpoints")
        steps = found.get("steps")
        if steps == run.goal.num_steps or (found.get("stopped_early") and step is None):
            return found
        if step is not None and found.get("stopped_early") and steps == step:
            with Checkpoints(workdir / "checkpoints", _base(run)) as checkpoints:
                return found if is_over(run, checkpoints.progress(step)) else None
    return None


def _base(run: Run) -> dict[str, str]:
    """What each checkpoint says of the weights that the run began with."""
    return {"model": run.settings.model.path, "sha256": str(run.settings.model.sha256)}


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


def _card(run: Run, calibration: Calibration | None) -> dict[str, Any]:
    data = to_dict(run.settings.data)
    temperature = None if calibration is None else calibration.temperature
    return {
        "task": run.task.name,
        **{name: data[name] for name in _CARD},
        "base_model": run.settings.model.path,
        "base_sha256": run.settings.model.sha256,
        **(prompts_of(run.settings) if run.task.head == EMBEDDING else {}),
        **({} if temperature is None else {"temperature": temperature}),
        **({} if run.settings.model.head is None else {"head": run.settings.model.head}),
    }
