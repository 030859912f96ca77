"""The training loop: steps from where a run stands to its end, and hooks between them."""

import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxtune.core import heap, trees
from jaxtune.core.errors import UserError
from jaxtune.parallel import multihost
from jaxtune.run import hooks, signals, stages
from jaxtune.run.checkpoint import Checkpoints, DamagedCheckpointError
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, Moment
from jaxtune.run.nonfinite import Taken, add_losses
from jaxtune.run.profile import Profile
from jaxtune.run.progress import Progress, is_over
from jaxtune.run.scorer import Scorer
from jaxtune.run.setup import Run
from jaxtune.run.stages import Stage
from jaxtune.run.tally import Pace, after_hooks, after_step, seconds_left
from jaxtune.run.trackers import Tracker
from jaxtune.training.compiled import Compiled, main_shape

_COMPILING = 4  # threads, where the host's cores have little else to do
_COMPILED_AHEAD = 100
"""Steps whose shapes are compiled before they come up, beside the first one."""

_IN_FLIGHT = 4
"""Steps that may be under way at once: each holds its batch, and none waits for the host."""


class Fit(NamedTuple):
    """What the loop brings back.

    Attributes:
      last: after the last step.
      programs: the compiled training step of each stage that ran, and the frozen layers below it.
      first_step: 0, or the step that a resumed run went on from.
    """

    last: Moment
    programs: tuple[tuple[Compiled, Compiled | None], ...]
    first_step: int


class Around(NamedTuple):
    """What a run is surrounded by.

    Attributes:
      trackers: take the numbers; started already.
      hooks: called after the loop's own, before it may stop on a signal.
      until: the time of `time.perf_counter` at which to stop with a checkpoint; None for never.
    """

    trackers: Sequence[Tracker] = ()
    hooks: Sequence[Hook] = ()
    until: float | None = None


def fit(
    moment: Moment,
    workdir: Path,
    report: Report,
    checkpoints: Checkpoints,
    scorer: Scorer,
    around: Around,
) -> Fit:
    """Steps from a moment, as `first` gives it, to the last step or an early stop.

    Args:
      moment: to go on from.
      workdir: gets the profile, and the activations that are too many for memory.
      report: where a person reads along.
      checkpoints: of the workdir.
      scorer: (all parameters, split) -> scores.
      around: trackers, hooks, and when to stop.

    Raises:
      InterruptedRunError: a signal came, or the time is up; the checkpoint is written.
      UserError: a step, the parameters or the validation loss is not finite.
    """
    run, trackers = moment.run, around.trackers
    first_step, programs = moment.step, [_programs(moment.stage)]
    waiting: list[Taken] = []
    _tell(moment.stage, report)
    with contextlib.ExitStack() as stack:
        received = stack.enter_context(signals.collected())
        update = stack.enter_context(report.bar("training", run.goal.num_steps, first_step))
        steps = run.settings.profile.steps if multihost.is_first() else None
        profile = stack.enter_context(
            contextlib.closing(Profile(steps, workdir / "profile", report))
        )
        logged = hooks.log(run, trackers, update, report)
        evaluated = hooks.evaluation(run, scorer, trackers, report)
        saved = hooks.checkpoint(run, checkpoints, evaluated)
        asked = hooks.asked(received, checkpoints, logged, around.until)
        chain = [hooks.traced(profile), logged, evaluated, saved, *around.hooks, asked]
        stack.callback(lambda: moment.stage.step.close())
        _compile_ahead(moment)
        stream = moment.stage.loader.on_devices(moment.step, moment.progress.stage_starts[-1])
        stack.callback(lambda: stream.close())  # the one of the last stage
        while moment.step < run.goal.num_steps and not is_over(run, moment.progress):
            if stages.is_due(run, moment.progress, moment.step):
                stream.close()
                moment.stage.step.close()
                moment = _next_stage(moment, report, workdir)
                stream = moment.stage.loader.on_devices(moment.step, moment.step)
                programs.append(_programs(moment.stage))
                _compile_ahead(moment)
            for hook in chain:
                hook.before(moment)
            moment, due = _step(moment, stream, waiting, chain, update, report)
            moment = _act(moment, due, scorer, evaluated)
    return Fit(moment, tuple(programs), first_step)


def first(run: Run, workdir: Path, report: Report, checkpoints: Checkpoints) -> Moment:
    """Where the newest sound checkpoint stands, or the beginning.

    Args:
      run: as it was prepared; its parameters that the first stage trains are freed.
      workdir: gets the activations that are too many for memory.
      report: is told of damaged checkpoints, which are set aside.
      checkpoints: of the workdir.

    Raises:
      UserError: all checkpoints are damaged, or one belongs to another model.
    """
    for step in checkpoints.unreadable:
        told = f"the checkpoint {checkpoints.folder / str(step)} is damaged, and set aside"
        if not checkpoints.steps:
            raise UserError(f"{told}. There is no other: the same command again begins anew.")
        report.line(told)
    if checkpoints.latest_step is not None:
        run = stages.shed(run)
    while (latest := checkpoints.latest_step) is not None:
        try:
            stage, progress = stages.restore(run, checkpoints, latest, workdir)
        except DamagedCheckpointError as error:
            if len(checkpoints.steps) == 1:
                raise UserError(
                    f"{error} There is no other: remove that folder to begin anew, or use another"
                    " --workdir."
                ) from None
            report.line(f"{error} It is set aside as {latest}.damaged; the one before is taken.")
            checkpoints.set_aside(latest)
            continue
        report.line(f"going on from the checkpoint at step {latest}")
        if progress.best_step >= 0 and progress.best_step not in checkpoints.steps:
            report.line(
                f"the best checkpoint, of step {progress.best_step}, is gone: the best is chosen"
                " among those from here on"
            )
            progress = progress._replace(best_step=-1, best_scores={})
        return Moment(run, latest, stage, progress)
    run, stage = stages.begin_run(run, workdir)
    return Moment(run, 0, stage, Progress())


def _step(
    moment: Moment,
    stream: Any,
    waiting: list[Taken],
    chain: list[Hook],
    update: Any,
    report: Report,
) -> tuple[Moment, list[Hook]]:
    """One step, and the hooks that are due after it."""
    run, stage, tally = moment.run, moment.stage, moment.tally
    begin, compiling = time.perf_counter(), stage.compile_seconds
    index, batch = next(stream)
    if not stage.step.knows(batch):
        shape = " x ".join(map(str, main_shape(batch)))
        update(0, f"compiling for batches of {shape}")
        jax.block_until_ready(waiting)  # or these would be computed in uncounted time
        stage.step.program(stage.state, stage.frozen, batch)
        heap.trim()  # of what the compiler leaves
    state, info = stage.step(stage.state, stage.frozen, batch)
    stage = stage._replace(state=state)
    waiting.append(Taken(moment.step + 1, index.indices, info))
    moment = moment._replace(step=moment.step + 1, stage=stage, info=info)
    due = [hook for hook in chain if hook.due(moment)]
    if due or stages.is_due(run, moment.progress, moment.step):
        progress = add_losses(
            run, moment.progress, waiting, lambda: stage.state.params, report.line
        )
        moment = moment._replace(progress=progress)
        waiting.clear()
    else:
        jax.block_until_ready(waiting[:-_IN_FLIGHT][-1:])
    # What the background compiled ahead may have taken longer than this step.
    own = max(0.0, time.perf_counter() - begin - (stage.compile_seconds - compiling))
    under_way = sum(len(s.indices) for s in waiting[-_IN_FLIGHT:] if not _is_done(s))
    taken = len(index.indices), run.data.stream.num_tokens(index)
    tally = after_step(tally, taken, own, under_way, stage.compile_seconds)
    update(1, left=seconds_left(run, moment.step, tally))
    return moment._replace(tally=tally), due


def _is_done(step: Taken) -> bool:
    loss: Any = step.info.loss.total
    return loss.is_ready()


def _act(moment: Moment, due: list[Hook], scorer: Scorer, evaluated: Hook) -> Moment:
    """What the hooks that are due make of a moment, and how long they took."""
    if not due:
        return moment
    begin, compiling = time.perf_counter(), scorer.step.waited
    for hook in due:
        moment = hook.act(moment) or moment
    seconds = time.perf_counter() - begin - (scorer.step.waited - compiling)
    return moment._replace(tally=after_hooks(moment.tally, seconds, evaluated in due))


def _compile_ahead(moment: Moment) -> None:
    """Begins to compile for the shapes that come up after the first, beside the first steps."""
    run, stage, step = moment.run, moment.stage, moment.step
    count = min(_COMPILED_AHEAD, run.goal.num_steps - step)
    others = itertools.islice(stage.loader.shapes(step, count), 1, None)
    # A CPU's cores are those that compute.
    on_cpu = run.pretrained.design.device.platform == "cpu"
    threads = 1 if on_cpu else max(1, min(_COMPILING, (os.cpu_count() or 1) // 2))
    stage.step.ahead(others, stage.state, stage.frozen, threads=threads)


def _next_stage(moment: Moment, report: Report, workdir: Path) -> Moment:
    """The stage after this one, with its parameters; says what it trains."""
    run, last = moment.run, moment.stage
    stage = stages.begin(run, last.number + 1, moment.params, last.state, workdir)
    count = trees.count(stage.state.params)
    report.line(
        f"stage {stage.number + 1} of {len(run.tuning.stage_labels)} from step {moment.step}:"
        f" {count:,} parameters in training"
    )
    _tell(stage, report)
    starts = (*moment.progress.stage_starts, moment.step)
    progress = moment.progress._replace(stage_starts=starts, bad_evals=0)
    tally = moment.tally._replace(pace=Pace())
    return moment._replace(stage=stage, progress=progress, tally=tally)


def _programs(stage: Stage) -> tuple[Compiled, Compiled | None]:
    return stage.step, stage.loader.trunk


def _tell(stage: Stage, report: Report) -> None:
    """Says what becomes of the frozen layers."""
    told = stage.loader.describe()
    if told:
        report.line(told)
