"""The loss, scores and hooks that settings name as functions of a person's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core.errors import UserError, nearest
from jaxtune.core.types import Batch, LossFn, Params
from jaxtune.data.batching.stream import Stream
from jaxtune.models.design import Design
from jaxtune.models.registry import make_apply
from jaxtune.run.hooks import Hook, every
from jaxtune.run.own_code import Use, checked, find, said
from jaxtune.settings import Settings
from jaxtune.tasks.registry import find_task
from jaxtune.tasks.task import Task, whole_outputs
from jaxtune.training.distillation import make_distillation_loss

LOSS = Use(
    "(outputs, batch)",
    "the mean loss of the batch's rows, a scalar or a jaxtune.Mean",
    "def FUNCTION(outputs, batch): return jaxtune.losses.cross_entropy(outputs, batch)",
)
SCORE = Use(
    "(outputs, examples)",
    "a number",
    "def FUNCTION(outputs, examples): return float((outputs.argmax(-1) == examples.labels).mean())",
)
HOOK = Use("(moment)", "None or a Moment", "def FUNCTION(moment): print(moment.step)")


def loss_of(settings: Settings, task: Task) -> LossFn | None:
    """The loss that the settings name; None where they name none.

    Raises:
      UserError: as `checked`; or the task's loss is more than a function of outputs.
    """
    name = settings.loss.function
    if name is None:
        return None
    if task.loss.read is not whole_outputs:
        raise UserError(
            f"config.loss.function is {name!r}, but {task.name} computes the loss where it computes"
            " the logits, a part of the tokens at a time: expected None."
        )
    return checked("loss.function", name, LOSS)


def check_loss(name: str, loss: LossFn, design: Design, batch: Any) -> None:
    """Traces a loss on the shapes of a batch, before any weight is read.

    Raises:
      UserError: it fails, or gives no mean.
    """
    has = ", ".join(f"{key} {list(np.shape(value))}" for key, value in sorted(batch.items()))
    try:
        found = trace_loss(loss, design, batch)
    except Exception as error:
        raise UserError(
            f"config.loss.function is {name!r}: {said(error, name)}. The batch has {has}."
        ) from None
    for leaf in jax.tree.leaves(found):
        if leaf.shape != () or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UserError(
                f"config.loss.function is {name!r}, which gives {leaf.dtype.name}{list(leaf.shape)}"
                f" for a batch: expected {LOSS.gives}."
            )


def trace_loss(loss: LossFn, design: Design, batch: Any) -> Any:
    """The shapes of what a loss gives for the shapes of a batch."""
    apply_fn = make_apply(design.module)

    def trace(params: Params, batch: Batch) -> Any:
        return loss(apply_fn(params, batch, key=None, train=False), batch)

    return jax.eval_shape(trace, design.shapes, batch)


def make_loss(
    settings: Settings, task: Task, own: LossFn | None, design: Design, stream: Stream
) -> LossFn:
    """The loss of a run, checked on the shapes of a batch where it may not fit them.

    Where there is a teacher, with what is learnt from it.

    Args:
      settings: of the run.
      task: makes its loss of the training data.
      own: in its place; None for none.
      design: of the model.
      stream: of the training data.

    Raises:
      UserError: as `check_loss`, or as the task's loss, which may not fit data or model.
    """
    if own is not None:
        check_loss(str(settings.loss.function), own, design, stream.empty())
        return own
    loss_fn = task.loss.make(settings.loss, design.outputs.class_names, stream.examples.labels)
    if settings.loss.groups.matryoshka_dims:
        trace_loss(loss_fn, design, stream.empty())
    taught = settings.distillation
    if taught.teacher is None or task.loss.soft is None:
        return loss_fn
    soft = task.loss.soft(taught.temperature)
    return make_distillation_loss(loss_fn, soft, taught.alpha, taught.hidden_weight)


def metric_of(task: Task, name: str | None) -> str:
    """The score that chooses the best step: the task's own where none is named.

    Raises:
      UserError: the task has no such score.
    """
    known = task.scores.higher_is_better
    if name is None:
        return task.scores.best
    if name not in known:
        raise UserError(
            f"config.train.best_metric is {name!r}: the task {task.name} has"
            f" {', '.join(known)}.{nearest(name, known)}"
        )
    return name


def metric_of_data(settings: Settings, task: Task, validation: Any) -> str:
    """As `metric_of`, of the scores that are told of the validation examples.

    Raises:
      UserError: the task has no such score, or not of such data.
    """
    chosen = settings.train.best_metric
    name = metric_of(task, chosen)
    if task.scores.of_data is None:
        return name
    told, usual = task.scores.of_data(validation), find_task(settings.task).scores.higher_is_better
    if chosen is None:
        return told[0]
    if name in usual and name not in told:  # and no score of a person's own
        raise UserError(
            f"config.train.best_metric is {name!r}, which is not told of such rows: expected one of"
            f" {', '.join(told)}."
        )
    return name


def scored(task: Task, names: Sequence[str]) -> Task:
    """The task with further scores, each called as its function is.

    A function with the attribute `higher_is_better = False` is better where it is lower.

    Raises:
      UserError: as `checked`; or two scores have one name.
    """
    if not names:
        return task
    functions: dict[str, Callable[..., Any]] = {}
    for name in names:
        short = name.rpartition(":")[2].rpartition(".")[2]
        if short in (*task.scores.higher_is_better, *functions):
            raise UserError(
                f"config.train.scores has {name!r}, but {short!r} is a score already: expected"
                " another name of the function."
            )
        functions[short] = checked("train.scores", name, SCORE)
    compute = task.scores.compute

    def all_of_them(means: Mapping[str, float], outputs: Any, examples: Any) -> dict[str, float]:
        return compute(means, outputs, examples) | {
            short: _number(short, function, outputs, examples)
            for short, function in functions.items()
        }

    directions = {
        short: bool(getattr(function, "higher_is_better", True))
        for short, function in functions.items()
    }
    scores = task.scores._replace(
        compute=all_of_them, higher_is_better={**task.scores.higher_is_better, **directions}
    )
    return task._replace(scores=scores)


def _number(name: str, function: Callable[..., Any], outputs: Any, examples: Any) -> float:
    try:
        return float(function(outputs, examples))
    except Exception as error:
        raise UserError(f"config.train.scores: {said(error, name)}") from None


def hooks_of(names: Sequence[str]) -> list[Hook]:
    """The hooks that settings name: a `Hook`, or a function of the `Moment` after each step.

    Raises:
      UserError: as `checked`.
    """
    found = []
    for name in names:
        hook = find("train.hooks", name)
        if not isinstance(hook, Hook):
            hook = Hook(checked("train.hooks", name, HOOK), every(1))
        found.append(hook)
    return found
