"""How fast a run goes, and how long the rest of it takes."""

from typing import NamedTuple

from jaxtune.run.plan import steps_between_evaluations
from jaxtune.run.setup import Run

_OF_TRAINING = 1 / 3
"""What evaluating an example costs beside training on it, until one evaluation was timed."""


class Tally(NamedTuple):
    """Of the steps that this process has taken.

    Attributes:
      seconds: of training, with waiting for batches, without compiling and evaluating.
      examples: trained on in those seconds.
      tokens: real ones among them, without padding.
      evaluating: seconds of the last evaluation; 0 before the first one.
    """

    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    evaluating: float = 0.0


def seconds_left(run: Run, step: int, tally: Tally) -> float | None:
    """Until the last step and the evaluations up to it are done; None before a step.

    Compiling has no part in it, which is over when the first steps are.

    Args:
      run: with so many steps and evaluations.
      step: that was taken last.
      tally: of the steps so far.
    """
    goal, settings = run.goal, run.settings.train
    if not tally.examples:
        return None
    each = tally.seconds / tally.examples
    every = steps_between_evaluations(settings, goal.steps_per_epoch)
    last = goal.num_steps - 1
    evaluations = last // every - step // every + 1 if step <= last else 0
    held_out = len(run.data.examples["validation"].lengths)
    evaluating = tally.evaluating or held_out * each * _OF_TRAINING
    return (goal.num_steps - step) * settings.batch_size * each + evaluations * evaluating
