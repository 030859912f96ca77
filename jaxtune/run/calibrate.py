"""The temperature of a run's probabilities, of the outputs of validation at the best step."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxtune.core.types import Params
from jaxtune.data.text.examples import rows_of
from jaxtune.run.hooks import Hook, Moment, every
from jaxtune.run.plan import steps_between_evaluations
from jaxtune.run.setup import Run
from jaxtune.tasks.calibration import Calibration, calibrate


class BestOutputs:
    """The outputs of validation at the best step so far.

    Attributes:
      hook: of the training loop, after the evaluation; takes note of the best step.
    """

    def __init__(self, run: Run) -> None:
        """Nothing is known yet."""
        self._labels = run.data.examples["validation"].labels
        self._keeps = run.task.output.ranks
        self._last: Any = None
        self._best: tuple[int, Any] = (-1, None)
        steps = steps_between_evaluations(run.settings.train, run.goal.steps_per_epoch)
        self.hook = Hook(self._note, every(steps))

    def see(self, split: str, outputs: Any) -> None:
        """Remembers the outputs of validation until they are judged."""
        if self._keeps and split == "validation":
            self._last = outputs

    def _note(self, moment: Moment) -> None:
        if moment.progress.best_step == moment.step:
            self._best = moment.step, self._last
        self._last = None

    def calibration(
        self, params: Params, step: int, scores_of: Callable[[Params, str], Any]
    ) -> Calibration | None:
        """Of validation; None of a task whose outputs are no logits of classes.

        Args:
          params: all parameters at the best step. They are evaluated where this process has not
            done that: a run that went on after its best step.
          step: the best one.
          scores_of: the evaluation, which shows this its outputs.
        """
        if not self._keeps:
            return None
        if self._best[0] != step:
            if self._last is None:  # what was seen since the last step is of these parameters
                scores_of(params, "validation")
            self._best = step, self._last
        outputs = self._best[1]
        labels = rows_of(self._labels, np.arange(len(outputs)))
        if labels.ndim > 1:  # further columns are of classes that the model does not have
            return calibrate(outputs, labels[:, : outputs.shape[1]])
        known = labels < outputs.shape[1]
        return calibrate(outputs[known], labels[known])


def calibration_fields(found: Calibration | None) -> dict[str, Any]:
    """What results.json holds of it; nothing of a task without classes."""
    return {} if found is None else {"calibration": found._asdict()}


def calibration_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How far probabilities are from how often they are right, and what the temperature does."""
    found = results.get("calibration")
    if not found:
        return []
    told = f"ECE {found['ece']:.4f} on validation"
    if found["temperature"] is None:
        return [("probabilities", f"{told}; no temperature: {found['reason']}")]
    after, temperature = found["ece_calibrated"], found["temperature"]
    return [("probabilities", f"{told}, {after:.4f} at temperature {temperature:.3f}")]
