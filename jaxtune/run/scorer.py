"""The evaluation of a run: its parameters to the scores of a split."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jaxtune.core.types import Params
from jaxtune.frozen.held_out import HeldStates
from jaxtune.run.console import Report
from jaxtune.run.evaluate import NonFiniteError, all_scores, predict_all
from jaxtune.run.fitted import Fit, as_trained, make_fit
from jaxtune.run.setup import Run
from jaxtune.training.compiled import Compiled
from jaxtune.training.eval_step import make_eval_step
from jaxtune.training.sharded_step import compile_eval
from jaxtune.tuning import injection


class Scorer(NamedTuple):
    """(all parameters, split) -> the scores of that split.

    Attributes:
      run: has the examples.
      report: shows the progress.
      step: the compiled evaluation; on several devices, each has the outputs of all.
      see: each is shown the split and its outputs.
      held: keeps what frozen layers give, where the step stands on that.
      fit: completes the parameters that are scored.
    """

    run: Run
    report: Report
    step: Compiled
    see: Sequence[Callable[[str, Any], Any]]
    held: HeldStates | None = None
    fit: Fit = as_trained

    def __call__(self, params: Params, split: str) -> dict[str, float]:
        """The mean loss and the task's scores, by name.

        Raises:
          NonFiniteError: as `predict_all`; names the split.
        """
        run, examples, params = self.run, self.run.data.examples[split], self.fit(params)
        no_holes = jax.tree.map(lambda _: None, params)
        complete = (lambda batch: batch) if self.held is None else self.held.of(split, params)
        with self.report.bar(f"evaluating {split}", len(examples.lengths)) as update:
            try:
                means, outputs = predict_all(
                    lambda batch: self.step(params, no_holes, complete(batch)),
                    examples,
                    run.data.eval_layout,
                    update,
                    per_token=run.task.output.per_token,
                    sharding=run.sharding,
                )
            except NonFiniteError as error:
                raise NonFiniteError(f"{split}: {error}") from None
        for see in self.see:
            see(split, outputs)
        return all_scores(run.task, means, outputs, examples)


def make_scorer(run: Run, report: Report, see: Sequence[Callable[[str, Any], Any]] = ()) -> Scorer:
    """The evaluation of a run, whose outputs each of `see` is shown; nothing is compiled yet."""
    loss, held, whole = run.task.loss, run.tuning.trunks[0].held, run.tuning.apply_fn
    if held is not None:
        whole = injection.adapt(run.tuning.strategy, held.upper)
    apply_fn = loss.read(whole)
    step = make_eval_step(apply_fn, loss.metrics, run.task.output.fetch)
    return Scorer(run, report, compile_eval(step, run.sharding), see, held, make_fit(run))
