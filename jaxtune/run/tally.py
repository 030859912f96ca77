"""How fast a run goes, and how long the rest of it takes."""

from typing import NamedTuple

from jaxtune.run.plan import stage_start, steps_between_evaluations
from jaxtune.run.setup import Run
from jaxtune.tuning.partition import Staged

_OF_TRAINING = 1 / 3
"""What an example, or a program, of evaluation costs beside one of training, until one is timed."""

_KEPT = 0.95
"""What the weight of a step becomes with the next one: the pace is that of the last twenty."""


class Pace(NamedTuple):
    """Of the last steps of a stage, those that are done.

    Attributes:
      seconds: between two evaluations, without compiling.
      examples: trained on in those seconds.
      under_way: examples of steps that were started and are not done.
      compiling: seconds that the steps of this stage waited for their programs.
    """

    seconds: float = 0.0
    examples: float = 0.0
    under_way: int = 0
    compiling: float = 0.0


class Tally(NamedTuple):
    """Of the steps that this process has taken.

    Attributes:
      seconds: of training, with waiting for batches, without compiling and evaluating.
      examples: trained on in those seconds.
      tokens: real ones among them, without padding.
      evaluating: seconds of the last evaluation with its checkpoint, without compiling; 0 before
        the first one.
      pace: what the time left is told from.
    """

    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    evaluating: float = 0.0
    pace: Pace = Pace()


def after_step(
    tally: Tally, taken: tuple[int, int], own: float, under_way: int, compiling: float
) -> Tally:
    """The tally with one more step.

    Args:
      tally: before it.
      taken: its examples and tokens.
      own: seconds that it took here, without compiling.
      under_way: examples of the steps that are not done yet, this one included.
      compiling: seconds that the stage has waited for its programs.
    """
    examples, tokens = taken
    pace = tally.pace
    done = examples + pace.under_way - under_way
    return tally._replace(
        seconds=tally.seconds + own,
        examples=tally.examples + examples,
        tokens=tally.tokens + tokens,
        pace=Pace(
            seconds=_KEPT * pace.seconds + own,
            examples=_KEPT * pace.examples + done,
            under_way=under_way,
            compiling=compiling,
        ),
    )


def after_hooks(tally: Tally, seconds: float, evaluated: bool) -> Tally:
    """The tally with what was done between two steps: an evaluation, or as often as steps are."""
    if evaluated:
        return tally._replace(evaluating=seconds)
    pace = tally.pace
    return tally._replace(pace=pace._replace(seconds=pace.seconds + seconds))


def seconds_left(run: Run, step: int, tally: Tally) -> float | None:
    """Until the last step and the evaluations up to it are done; None before a step is.

    The stages to come are taken to cost what this one does, and to compile for as long.

    Args:
      run: with so many steps and evaluations.
      step: that was taken last; its evaluation is to come.
      tally: of the steps so far.
    """
    pace = tally.pace
    if pace.examples <= 0:
        return None
    each = pace.seconds / pace.examples
    examples = _examples_until(run, run.goal.num_steps) - _examples_until(run, step)
    left = (examples + pace.under_way) * each
    left += _stages_left(run, step) * pace.compiling
    evaluations = _evaluations_left(run, step)
    if tally.evaluating:
        return left + evaluations * tally.evaluating
    held_out = len(run.data.examples["validation"].lengths)
    return left + (evaluations * held_out * each + pace.compiling) * _OF_TRAINING


def _examples_until(run: Run, step: int) -> int:
    """Those of the first so many steps, of which the last one of an epoch may have fewer."""
    count, batch_size = len(run.data.stream.examples.lengths), run.settings.train.batch_size
    groups = run.data.stream.groups
    if groups is not None:  # of which each has several
        batch_size = round(batch_size * count / len(groups.sizes))
    epochs, steps = divmod(step, run.goal.steps_per_epoch)
    return epochs * count + min(steps * batch_size, count)


def _evaluations_left(run: Run, step: int) -> int:
    """Those after this step and later ones; there is one after the last step in any case."""
    every = steps_between_evaluations(run.settings.train, run.goal.steps_per_epoch)
    return (run.goal.num_steps - 1) // every - (step - 1) // every + 1


def _stages_left(run: Run, step: int) -> int:
    """Those that begin after a step; 0 where that depends on the score."""
    strategy, count = run.tuning.strategy, len(run.tuning.stage_labels)
    if not isinstance(strategy, Staged):
        return 0
    steps_per_epoch = run.goal.steps_per_epoch
    starts = [stage_start(strategy, index, steps_per_epoch) for index in range(1, count)]
    return sum(start is not None and step <= start < run.goal.num_steps for start in starts)
