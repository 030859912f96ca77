"""Losses and gradients of the steps so far: added up, and what is done where one is not finite."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.run.progress import Progress
from jaxtune.run.setup import Run
from jaxtune.training.step import StepInfo

REMEDY = (
    "Lower config.optimizer.learning_rate, set config.optimizer.clip_norm, or use"
    " config.precision.compute_dtype=float32; the last checkpoint is kept."
)
_SHOWN = 8  # rows that a message names; all of them are printed


class Taken(NamedTuple):
    """A step that was started.

    Attributes:
      number: of the step, from 1.
      indices: of its examples.
      info: what it reports, once it is done.
    """

    number: int
    indices: np.ndarray
    info: StepInfo


def add_losses(
    run: Run,
    progress: Progress,
    taken: Sequence[Taken],
    params: Callable[[], Params],
    say: Callable[[str], Any],
) -> Progress:
    """Waits for the steps that are under way, and adds their losses in their order.

    Args:
      run: says what to do where a loss or gradient is NaN or infinite.
      progress: gets the losses.
      taken: the steps since it was asked last.
      params: the parameters in training, after the last of them.
      say: takes a line for a person.

    Raises:
      UserError: a step is not finite and none is to be skipped; names its numbers and rows.
    """
    infos = jax.device_get([step.info for step in taken])
    for step, info in zip(taken, infos, strict=True):
        if np.isfinite(info.loss.total) and np.isfinite(info.grad_norm):
            progress = progress._replace(
                loss_total=progress.loss_total + float(info.loss.total),
                loss_weight=progress.loss_weight + float(info.loss.weight),
            )
            continue
        say(f"step {step.number}: rows {', '.join(map(str, rows_of(run, step.indices)))} of train")
        if run.settings.train.on_nonfinite == "stop":
            raise UserError(_message(run, step, info, params()))
        say(f"step {step.number} is left out: {_numbers(run, step, info)}")
        progress = progress._replace(skipped=progress.skipped + 1)
    return progress


def rows_of(run: Run, indices: np.ndarray) -> list[int]:
    """The places of examples in the training file, from 1; their own numbers where unknown."""
    places = run.data.places
    return sorted((indices if places is None else places[indices]).tolist())


def _numbers(run: Run, step: Taken, info: StepInfo) -> str:
    rate = float(np.asarray(run.goal.schedule(step.number - 1)))
    loss = float(info.loss.total) / max(float(info.loss.weight), 1.0)
    return f"loss {loss:g}, gradient norm {float(info.grad_norm):g}, learning rate {rate:g}"


def _message(run: Run, step: Taken, info: StepInfo, params: Params) -> str:
    rows = rows_of(run, step.indices)
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
    norm = float(optax.tree.norm(params))
    return (
        f"step {step.number} is not finite: {_numbers(run, step, info)}, norm of the parameters now"
        f" {norm:g}; its examples are rows {shown} of train. Look at these rows. {REMEDY}"
        " config.train.on_nonfinite=skip leaves such steps out."
    )
