"""The training loop: the only place with jit, files, clocks and signals."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.data.batching import batches
from jaxtune.export import adapter_folder
from jaxtune.io import atomic
from jaxtune.parallel import multihost
from jaxtune.run import stages, summary
from jaxtune.run.checkpoint import Checkpoints, Progress
from jaxtune.run.console import Report
from jaxtune.run.evaluate import all_scores, predict_all
from jaxtune.run.prepare import Run, prepare
from jaxtune.run.profile import Profile
from jaxtune.run.stages import Stage
from jaxtune.run.trackers import MetricsLog
from jaxtune.run.workdir import check_workdir, claim_workdir
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict, to_json
from jaxtune.train.compiled import Compiled, main_shape
from jaxtune.train.sharded_step import spread_eval
from jaxtune.train.step import StepInfo, make_eval_step
from jaxtune.tuning.partition import Staged

_CARD = (
    *("text_columns", "image_column", "label_column", "label_columns", "max_length"),
    *("mask_probability", "doc_stride", "max_answer_length", "n_best", "no_answer_threshold"),
    "allow_no_answer",
)
"""The settings of the data that jaxtune.json keeps for prediction."""

_IN_FLIGHT = 4
"""Steps that may be under way at once: each holds its batch, and none waits for the host."""


class InterruptedRunError(Exception):
    """A signal asked the run to stop; its checkpoint is written.

    Attributes:
      signum: the signal.
    """

    def __init__(self, signum: int, step: int) -> None:
        """Says how to go on."""
        self.signum = signum
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} at step {step}; the same command goes on from there.")


class Fit(NamedTuple):
    """What the loop brings back.

    Attributes:
      stage: after the last step.
      progress: which step was best.
      programs: the compiled training step of each stage that ran.
      trunks: the compiled frozen layers of those that have any.
      seconds: of training, with waiting for batches, without compiling and evaluating.
      examples: trained on in those seconds.
      tokens: real ones among them, without padding.
      first_step: 0, or the step that a resumed run went on from.
    """

    stage: Stage
    progress: Progress
    programs: list[Compiled]
    trunks: list[Compiled]
    seconds: float
    examples: int
    tokens: int
    first_step: int


def train(
    settings: Settings, workdir: Path, report: Report, tokens: Path | None = None
) -> dict[str, Any]:
    """Trains, evaluates and exports one run; an interrupted one goes on where it was.

    Args:
      settings: validated.
      workdir: gets `config.json`, `metrics.jsonl`, `results.json`, `checkpoints/`, `model/` and,
        with LoRA, `adapter/`.
      report: where a person reads along.
      tokens: a folder that keeps tokens from run to run; None keeps none.

    Returns:
      What `results.json` holds.

    Raises:
      UserError: bad input, or a workdir that holds another run.
      InterruptedRunError: a signal came; the checkpoint is written.
    """
    start = time.perf_counter()
    check_workdir(workdir, settings)
    run = prepare(settings, report, tokens)
    _claim(workdir, run)
    report.table("jaxtune", summary.start_rows(run, workdir))
    summary.show_audit(run, report)
    eval_step = compiled_eval(run)
    base = {"model": run.settings.model.path, "sha256": str(run.settings.model.sha256)}
    with Checkpoints(workdir / "checkpoints", base) as checkpoints:
        fit = _fit(run, workdir, report, checkpoints, eval_step)
        best = fit.stage
        if fit.progress.best_step != int(best.state.step):
            best, _ = stages.restore(run, checkpoints, fit.progress.best_step)
    params = stages.assemble(best)
    scores = {
        split: _evaluate(run, params, split, eval_step, report)
        for split in ("validation", "test")
        if split in run.examples
    }
    data = to_dict(run.settings.data)
    card = {
        "task": run.task.name,
        **{name: data[name] for name in _CARD},
        "base_model": run.settings.model.path,
        "base_sha256": run.settings.model.sha256,
    }
    params = multihost.on_host(params)
    if multihost.is_first():
        adapter_folder.write(workdir, run, params, card, report)
    results = summary.results(run, fit, scores, eval_step, time.perf_counter() - start)
    if multihost.is_first():
        atomic.write_atomic(workdir / "results.json", json.dumps(results, indent=2) + "\n")
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


def compiled_eval(run: Run) -> Compiled:
    """The evaluation step; on several devices, each has the outputs of all."""
    step = make_eval_step(run.apply_fn, run.task.metrics_fn, run.task.fetch)
    if run.placement is None:
        return Compiled(step)
    transform = partial(jax.jit, out_shardings=run.placement.whole)
    return Compiled(spread_eval(step, run.placement), transform=transform)


def _fit(
    run: Run,
    workdir: Path,
    report: Report,
    checkpoints: Checkpoints,
    eval_step: Compiled,
) -> Fit:
    """Steps from the newest checkpoint, or from 0, to the last step or an early stop."""
    settings, latest = run.settings.train, checkpoints.latest_step
    if latest is None:
        stage, progress = stages.begin(run, 0, run.params, folder=workdir), Progress()
    else:
        stage, progress = stages.restore(run, checkpoints, latest, workdir)
        report.line(f"going on from the checkpoint at step {latest}")
    programs = [stage.step]
    trunks = [stage.feed.trunk]
    step = first_step = latest or 0
    first = multihost.is_first()
    log = MetricsLog(workdir / "metrics.jsonl" if first else None, resume_step=step)
    waiting: list[StepInfo] = []
    seconds, examples, tokens = 0.0, 0, 0
    stream = stage.feed.stream(step, progress.stage_starts[-1])
    bar = report.bar("training", run.num_steps, step)
    profile = Profile(run.settings.profile.steps if first else None, workdir / "profile", report)
    _tell(stage, report)
    with contextlib.ExitStack() as stack:
        received, update = stack.enter_context(_signals()), stack.enter_context(bar)
        stack.enter_context(contextlib.closing(log))
        stack.enter_context(contextlib.closing(profile))
        stack.callback(lambda: stream.close())  # the one of the last stage
        while step < run.num_steps and not _is_over(run, progress):
            if stages.is_due(run, progress, step):
                stream.close()
                stage, progress = _next_stage(run, stage, progress, report, workdir)
                stream = stage.feed.stream(step, step)
                programs.append(stage.step)
                trunks.append(stage.feed.trunk)
            profile.before(step, waiting)
            begin, compiling = time.perf_counter(), stage.compile_seconds
            index, batch = next(stream)
            if not stage.step.knows(batch):
                shape = " x ".join(map(str, main_shape(batch)))
                update(0, f"compiling for batches of {shape}")
                jax.block_until_ready(waiting)  # or these would be computed in uncounted time
            state, info = stage.step(stage.state, stage.frozen, batch)
            stage = stage._replace(state=state)
            waiting.append(info)
            step += 1
            log_now = step % settings.log_every_steps == 0 or step == run.num_steps
            eval_now, save_now = _due(run, step)
            signum = _agreed(received, log_now)
            stop_now, next_now = bool(signum), stages.is_due(run, progress, step)
            if log_now or eval_now or save_now or stop_now or next_now or profile.ends(step):
                progress, waiting = _add_losses(progress, waiting), []
            else:
                jax.block_until_ready(waiting[:-_IN_FLIGHT][-1:])
            seconds += time.perf_counter() - begin - (stage.compile_seconds - compiling)
            examples, tokens = examples + len(index.indices), tokens + _tokens(run, index)
            profile.after(step)
            update(1)
            if log_now:
                loss = progress.loss_total / progress.loss_weight
                log.write(
                    step, _train_row(run, step, loss, float(info.grad_norm), tokens / seconds)
                )
                progress = progress._replace(loss_total=0.0, loss_weight=0.0)
                update(0, f"loss {loss:.4f}")
            if eval_now:
                scores = _evaluate(run, stages.assemble(stage), "validation", eval_step, report)
                progress = _judge(run, progress, step, scores[run.best_metric])
                log.write(step, {f"validation/{name}": value for name, value in scores.items()})
                report.line(_evaluation_line(run, step, scores, progress))
            if eval_now or save_now or stop_now:
                kept = stages.settled(run, stage.number, stage.frozen)
                checkpoints.save(stage.state, progress, kept)
            if stop_now:
                raise InterruptedRunError(signum, step)
    used = [trunk for trunk in trunks if trunk is not None]
    return Fit(stage, progress, programs, used, seconds, examples, tokens, first_step)


def _next_stage(
    run: Run, stage: Stage, progress: Progress, report: Report, workdir: Path
) -> tuple[Stage, Progress]:
    """The stage after `stage`, with its parameters; says what it trains."""
    step = int(stage.state.step)
    params = stages.assemble(stage)
    stage = stages.begin(run, stage.number + 1, params, stage.state, workdir)
    count = trees.count(stage.state.params)
    report.line(
        f"stage {stage.number + 1} of {len(run.stages)} from step {step}: {count:,} parameters in"
        " training"
    )
    _tell(stage, report)
    starts = (*progress.stage_starts, step)
    return stage, progress._replace(stage_starts=starts, bad_evals=0)


def _tell(stage: Stage, report: Report) -> None:
    """Says what becomes of the frozen layers."""
    told = stage.feed.describe()
    if told:
        report.line(told)


def _due(run: Run, step: int) -> tuple[bool, bool]:
    """Whether to evaluate, and whether to save a checkpoint, after `step` steps."""
    settings = run.settings.train
    every = settings.eval_every_steps or run.steps_per_epoch
    save_every = settings.checkpoint_every_steps
    evaluate = step % every == 0 or step == run.num_steps
    return evaluate, save_every is not None and step % save_every == 0


def _evaluate(
    run: Run, params: Params, split: str, eval_step: Compiled, report: Report
) -> dict[str, float]:
    """All scores of one split, with all parameters given."""
    examples = run.examples[split]
    no_holes = jax.tree.map(lambda _: None, params)
    with report.bar(f"evaluating {split}", len(examples.lengths)) as update:
        means, outputs = predict_all(
            lambda batch: eval_step(params, no_holes, batch),
            examples,
            run.eval_layout,
            update,
            per_token=run.task.per_token,
            placement=run.placement,
        )
    return all_scores(run.task, means, outputs, examples)


def _agreed(received: list[int], at_log: bool) -> int:
    """The signal to stop on, or 0; several processes settle that at the lines of the log."""
    own = received[0] if received else 0
    if jax.process_count() == 1:
        return own
    return multihost.largest(own) if at_log else 0


def _judge(run: Run, progress: Progress, step: int, value: float) -> Progress:
    """Takes note of a new best score, or of one more evaluation without one.

    A score that is NaN never beats one that is not; the first evaluation is always the best.
    """
    sign = 1.0 if run.task.higher_is_better[run.best_metric] else -1.0
    first = progress.best_step < 0
    better = sign * value > sign * progress.best_value or progress.best_value != progress.best_value
    if first or (better and value == value):
        return progress._replace(best_step=step, best_value=value, bad_evals=0)
    return progress._replace(bad_evals=progress.bad_evals + 1)


def _is_over(run: Run, progress: Progress) -> bool:
    """Whether patience is at its end; a plateau that ends a stage does not end the run."""
    patience = run.settings.train.patience
    if patience is None or progress.bad_evals < patience:
        return False
    by_score = isinstance(run.strategy, Staged) and run.strategy.stage_by == "plateau"
    return not by_score or len(progress.stage_starts) == len(run.stages)


def _add_losses(progress: Progress, infos: list[StepInfo]) -> Progress:
    """Waits for the steps that are under way, and adds their losses in their order."""
    for total, weight in jax.device_get([info.loss for info in infos]):
        progress = progress._replace(
            loss_total=progress.loss_total + float(total),
            loss_weight=progress.loss_weight + float(weight),
        )
    return progress


def _train_row(run: Run, step: int, loss: float, norm: float, rate: float) -> dict[str, Any]:
    if not np.isfinite(loss):
        raise UserError(
            f"the training loss is {loss} at step {step}. Lower config.optimizer.learning_rate, set"
            " config.optimizer.clip_norm, or use config.precision.compute_dtype=float32; the last"
            " checkpoint is kept."
        )
    return {
        "epoch": step / run.steps_per_epoch,
        "train/loss": loss,
        "train/grad_norm": norm,
        "train/learning_rate": float(np.asarray(run.schedule(step - 1))),
        "train/tokens_per_second": rate,
    }


def _evaluation_line(run: Run, step: int, scores: dict[str, float], progress: Progress) -> str:
    values = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    best = "  (best so far)" if progress.best_step == step else ""
    return f"step {step}/{run.num_steps}  epoch {step / run.steps_per_epoch:.2f}  {values}{best}"


def _tokens(run: Run, index: batches.BatchIndex) -> int:
    return int(run.examples["train"].lengths[index.indices].sum())


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list; a second one acts at once."""
    received: list[int] = []
    old: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        del frame
        received.append(signum)
        signal.signal(signum, old[signum])

    with contextlib.suppress(ValueError):  # not the main thread: its owner handles signals
        for signum in (signal.SIGINT, signal.SIGTERM):
            old[signum] = signal.signal(signum, note)
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
