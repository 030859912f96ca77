"""What the loop carries from step to step besides the train state, and how scores change it."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtune.run.setup import Run
from jaxtune.tuning.partition import Staged


class Progress(NamedTuple):
    """Written into every checkpoint.

    Attributes:
      best_step: step of the best evaluation so far; -1 before the first.
      best_scores: its scores by name.
      bad_evals: evaluations since then, or since the stage began, that were not better.
      loss_total: sum of the training losses since the last line of the log.
      loss_weight: sum of their weights.
      skipped: steps since then that were left out, as their numbers were not finite.
      stage_starts: the step at which each stage of the strategy began, up to the present one.
    """

    best_step: int = -1
    best_scores: Mapping[str, float] = {}
    bad_evals: int = 0
    loss_total: float = 0.0
    loss_weight: float = 0.0
    skipped: int = 0
    stage_starts: tuple[int, ...] = (0,)


def judge(run: Run, progress: Progress, step: int, scores: Mapping[str, float]) -> Progress:
    """Takes note of a new best score, or of one more evaluation without one.

    A score that is NaN never beats one that is not; the first evaluation is always the best.
    """
    name = run.goal.best_metric
    sign = 1.0 if run.task.scores.higher_is_better[name] else -1.0
    value, best = scores[name], progress.best_scores.get(name, float("nan"))
    better = sign * value > sign * best or best != best
    if progress.best_step < 0 or (better and value == value):
        return progress._replace(best_step=step, best_scores=dict(scores), bad_evals=0)
    return progress._replace(bad_evals=progress.bad_evals + 1)


def is_over(run: Run, progress: Progress) -> bool:
    """Whether patience is at its end; a plateau that ends a stage does not end the run."""
    patience, strategy = run.settings.train.patience, run.tuning.strategy
    if patience is None or progress.bad_evals < patience:
        return False
    by_score = isinstance(strategy, Staged) and strategy.stage_by == "plateau"
    return not by_score or len(progress.stage_starts) == len(run.tuning.stage_labels)
