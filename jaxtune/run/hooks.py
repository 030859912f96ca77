"""What happens between the steps of the training loop: the log, evaluation, checkpoints, stopping.

A hook of your own is a function of a `Moment`:

    def sharpen(moment):
        print(moment.step, moment.info.grad_norm)

    jaxtune.train(config, workdir, hooks=[Hook(sharpen, every(100))])
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.core.units import human_seconds
from jaxtune.run import signals, stages, values
from jaxtune.run.checkpoint import Checkpoints
from jaxtune.run.console import Report
from jaxtune.run.evaluate import NonFiniteError
from jaxtune.run.nonfinite import REMEDY
from jaxtune.run.plan import steps_between_evaluations
from jaxtune.run.profile import Profile
from jaxtune.run.progress import Progress, judge
from jaxtune.run.setup import Run
from jaxtune.run.stages import Stage
from jaxtune.run.tally import Tally, seconds_left
from jaxtune.run.trackers import Tracker
from jaxtune.training.step import StepInfo


class Moment(NamedTuple):
    """The run between two steps.

    Attributes:
      run: what does not change.
      step: optimizer steps taken.
      stage: the parameters, moments and compiled step as they are now.
      progress: the best scores, and the losses since the last line of the log.
      tally: how much was trained on, and how long.
      info: what the last step reported; None before the first.
    """

    run: Run
    step: int
    stage: Stage
    progress: Progress
    tally: Tally = Tally()
    info: StepInfo | None = None

    @property
    def params(self) -> Params:
        """All parameters as they are now.

        The next step may donate those that are trained, and the end of the loop frees them.
        """
        return stages.assemble(self.stage)

    @property
    def scored_params(self) -> Params:
        """`params`, or the average of them that `optimizer.ema_decay` asks for, as scores are of.

        The next step may donate those that are trained.
        """
        return stages.to_score(self.run, self.stage)


def _nothing(moment: Moment) -> None:
    del moment


class Hook(NamedTuple):
    """Something that happens between steps.

    Attributes:
      act: (moment) -> the moment with what it changes; None changes nothing.
      due: (moment) -> whether to act after this step. Where it is, all steps so far are waited for.
      before: called before each step.
    """

    act: Callable[[Moment], Moment | None]
    due: Callable[[Moment], bool]
    before: Callable[[Moment], None] = _nothing


def every(steps: int) -> Callable[[Moment], bool]:
    """Due after each so many steps, and after the last one of the run."""
    return lambda moment: moment.step % steps == 0 or moment.step == moment.run.goal.num_steps


def log(
    run: Run, trackers: Sequence[Tracker], note: Callable[[int, str], Any], report: Report
) -> Hook:
    """The mean loss since the last line, how fast it goes, and how long it will."""

    def act(moment: Moment) -> Moment:
        progress = moment.progress
        if progress.skipped and not progress.loss_weight:
            raise UserError(
                f"all {progress.skipped} steps up to step {moment.step} were left out, as none of"
                f" them was finite. {REMEDY}"
            )
        loss = progress.loss_total / progress.loss_weight if progress.loss_weight else np.nan
        row = _train_row(moment, loss)
        for tracker in trackers:
            tracker.log(moment.step, row)
        told = f"loss {loss:.4f}" if progress.loss_weight else "nothing was scored"
        note(0, told)
        report.progress(f"{_place(moment)}  {told}{_pace(moment)}")
        cleared = progress._replace(loss_total=0.0, loss_weight=0.0, skipped=0)
        return moment._replace(progress=cleared)

    return Hook(act, every(run.settings.train.log_every_steps))


def evaluation(
    run: Run,
    scores_of: Callable[[Params, str], dict[str, float]],
    trackers: Sequence[Tracker],
    report: Report,
) -> Hook:
    """The scores of the validation split; the best one is remembered."""

    def act(moment: Moment) -> Moment:
        try:
            scores = scores_of(moment.scored_params, "validation")
        except NonFiniteError as error:
            raise UserError(f"after step {moment.step}, {error} {REMEDY}") from None
        progress = judge(run, moment.progress, moment.step, scores)
        for tracker in trackers:
            tracker.log(moment.step, {f"validation/{k}": value for k, value in scores.items()})
        report.line(_evaluation_line(moment, scores, progress))
        return moment._replace(progress=progress)

    steps = steps_between_evaluations(run.settings.train, run.goal.steps_per_epoch)
    return Hook(act, every(steps))


def checkpoint(run: Run, checkpoints: Checkpoints, evaluated: Hook) -> Hook:
    """A checkpoint after each evaluation, and as often as the settings say."""
    steps = run.settings.train.checkpoint_every_steps

    def due(moment: Moment) -> bool:
        return evaluated.due(moment) or (steps is not None and moment.step % steps == 0)

    return Hook(lambda moment: _save(moment, checkpoints), due)


def asked(
    received: list[int], checkpoints: Checkpoints, logged: Hook, until: float | None = None
) -> Hook:
    """Saves a checkpoint where a signal asks for it, and ends the run where it is to stop.

    Args:
      received: the signals; those that were answered are taken out.
      checkpoints: of the run.
      logged: at whose lines several processes settle what to do.
      until: the time of `time.perf_counter` at which the run is to stop; None for never.
    """
    found: list[int] = []

    def due(moment: Moment) -> bool:
        if until is not None and time.perf_counter() >= until:
            received.append(signals.TIME_IS_UP)
        found[:] = [signals.agreed(received, logged.due(moment))]
        return bool(found[0])

    def act(moment: Moment) -> None:
        _save(moment, checkpoints)
        if found[0] != signals.SAVE:
            raise signals.InterruptedRunError(found[0], moment.step)
        received[:] = [signum for signum in received if signum != signals.SAVE]

    return Hook(act, due)


def traced(profile: Profile) -> Hook:
    """A trace of some steps."""
    return Hook(
        act=lambda moment: profile.after(moment.step),
        due=lambda moment: profile.ends(moment.step),
        before=lambda moment: profile.before(moment.step, moment.info),
    )


def _save(moment: Moment, checkpoints: Checkpoints) -> None:
    stage = moment.stage
    if not values.all_finite(stage.state.params):
        raise UserError(
            f"step {moment.step} leaves parameters that are NaN or infinite, so no checkpoint is"
            f" written. {REMEDY}"
        )
    kept = stages.settled(moment.run, stage.number, stage.frozen)
    checkpoints.save(stage.state, moment.progress, kept)


def _train_row(moment: Moment, loss: float) -> dict[str, Any]:
    goal, tally, info = moment.run.goal, moment.tally, moment.info
    assert info is not None
    skipped = moment.progress.skipped
    return {
        "epoch": moment.step / goal.steps_per_epoch,
        "train/loss": loss,
        "train/grad_norm": float(info.grad_norm),
        "train/learning_rate": float(np.asarray(goal.schedule(moment.step - 1))),
        "train/tokens_per_second": tally.tokens / tally.seconds if tally.seconds else None,
    } | ({"train/skipped_steps": skipped} if skipped else {})


def _evaluation_line(moment: Moment, scores: dict[str, float], progress: Progress) -> str:
    values = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    best = "  (best so far)" if progress.best_step == moment.step else ""
    return f"{_place(moment)}  {values}{best}"


def _place(moment: Moment) -> str:
    goal, step = moment.run.goal, moment.step
    return f"step {step}/{goal.num_steps}  epoch {step / goal.steps_per_epoch:.2f}"


def _pace(moment: Moment) -> str:
    tally = moment.tally
    left = seconds_left(moment.run, moment.step, tally)
    if left is None or not tally.seconds:
        return ""
    return f"  {tally.examples / tally.seconds:.1f} examples/s  {human_seconds(left)} left"
