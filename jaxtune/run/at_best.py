"""What the best step gives on held-out rows, taken from the outputs that its scores are made of."""

from collections.abc import Callable
from typing import Any

from jaxtune.core.types import Params
from jaxtune.run.hooks import Hook, Moment, every
from jaxtune.run.plan import steps_between_evaluations
from jaxtune.run.setup import Run


class AtBest:
    """Sees the outputs of each evaluation of a split, and takes those of the best step so far.

    Attributes:
      see: is shown a split and its outputs, as `make_scorer` has it.
      hook: of the training loop, after its evaluation.
    """

    def __init__(self, run: Run, split: str, take: Callable[[Any, int], Any]) -> None:
        """Nothing is seen yet.

        Args:
          run: whose evaluations are seen.
          split: whose outputs are.
          take: (outputs, step) -> what is kept of them.
        """
        self._split, self._take_of = split, take
        self._seen: Any = None
        self._step, self._taken = -1, None
        steps = steps_between_evaluations(run.settings.train, run.goal.steps_per_epoch)
        self.hook = Hook(self._judge, every(steps))

    def see(self, split: str, outputs: Any) -> None:
        """Remembers the outputs until they are judged."""
        if split == self._split:
            self._seen = outputs

    def finish(self, step: int, params: Params, scores_of: Callable[[Params, str], Any]) -> Any:
        """What is kept of the best step, which is evaluated where an earlier start had seen it.

        Args:
          step: the best one of the run.
          params: all parameters there.
          scores_of: the evaluation, which shows its outputs to `see`.
        """
        if self._seen is None and self._step != step:
            scores_of(params, self._split)
        if self._seen is not None:  # since the last step, so of these parameters
            self._take(step)
        return self._taken

    def _judge(self, moment: Moment) -> None:
        if self._seen is not None and moment.progress.best_step == moment.step:
            self._take(moment.step)
        self._seen = None

    def _take(self, step: int) -> None:
        outputs, self._seen, self._step, self._taken = self._seen, None, step, None
        self._taken = self._take_of(outputs, step)
