"""One trial of a sweep: a run that reports its scores, and ends early where it is hopeless."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, Moment, every
from jaxtune.run.plan import steps_between_evaluations
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run
from jaxtune.run.train import train_prepared
from jaxtune.settings import Settings
from jaxtune.studies.shared import Shared, without_test


class PrunedError(Exception):
    """The trial is worse than the others were by then.

    Attributes:
      step: after which it ended.
    """

    def __init__(self, step: int) -> None:
        """Says when."""
        self.step = step
        super().__init__(f"after step {step}")


class Judge(NamedTuple):
    """What a sweep thinks of a trial that is under way.

    Attributes:
      report: (number of the evaluation from 1, score) is called after each but the last.
      is_hopeless: whether to end.
    """

    report: Callable[[int, float], None]
    is_hopeless: Callable[[], bool]


class _Scores:
    """A tracker that remembers the scores of the last evaluation."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Knows nothing of earlier ones."""
        del config, step

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Takes those of validation."""
        del step
        found = {k.removeprefix("validation/"): v for k, v in scores.items() if "validation/" in k}
        self.last = found or self.last

    def finish(self) -> None:
        """Has nothing open."""


class Trainer:
    """Trains the trials of one sweep, in one process."""

    def __init__(self, report: Report, tokens: Path | None, max_memory_bytes: int) -> None:
        """Nothing is trained yet.

        Args:
          report: gets a line for each evaluation.
          tokens: a folder that keeps tokens from run to run; None keeps none.
          max_memory_bytes: of what frozen layers give.
        """
        self._report, self._tokens = report, tokens
        self._shared = Shared(max_memory_bytes)

    def __call__(self, settings: Settings, workdir: Path, judge: Judge) -> dict[str, Any]:
        """Trains one trial, or goes on with one.

        Returns:
          What its `results.json` holds; the test rows are not scored.

        Raises:
          PrunedError: it was hopeless.
          UserError: as `train`.
          InterruptedRunError: as `train`.
        """
        quiet, scores = Report(quiet=True), _Scores()
        hooks: list[Hook] = []  # known once the run is prepared

        def make() -> Run:
            run = without_test(prepare(settings, quiet, self._tokens))
            run, kept = self._shared.lend(run)
            hooks.extend(hook for hook in (kept, self._judged(run, scores, judge)) if hook)
            return run

        return train_prepared(make, settings, workdir, quiet, hooks, [scores])

    def _judged(self, run: Run, scores: _Scores, judge: Judge) -> Hook:
        between = steps_between_evaluations(run.settings.train, run.goal.steps_per_epoch)
        metric = run.goal.best_metric

        def act(moment: Moment) -> None:
            value = scores.last[metric]
            place = f"  step {moment.step}/{run.goal.num_steps}"
            self._report.line(f"{place}  {metric} {value:.4f}")
            if moment.step == run.goal.num_steps or value != value:
                return
            judge.report(moment.step // between, value)
            if judge.is_hopeless():
                raise PrunedError(moment.step)

        return Hook(act, every(between))
