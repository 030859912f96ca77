"""Outputs and scores over any number of examples, exact whatever the batch size."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxtune.data import batches
from jaxtune.prefetch import on_device, prefetch
from jaxtune.tasks.task import Task
from jaxtune.types import Batch

Advance = Callable[[int], Any]


def predict_all(
    step: Callable[[Batch], Any],
    examples: Any,
    lengths: tuple[int, ...],
    batch_size: int,
    advance: Advance = lambda count: None,
    *,
    per_token: bool = False,
) -> tuple[dict[str, float], Any]:
    """Runs a step over all examples, longest last, and puts the outputs back in order.

    Args:
      step: batch -> (metrics, outputs [b ...] or None), as `make_eval_step` makes with its
        parameters bound.
      examples: n of them.
      lengths: padded lengths to choose from, in tokens.
      batch_size: examples a step; the last batch is filled with rows of weight 0.
      advance: called with the number of examples done.
      per_token: whether the outputs are of tokens, [b t ...]; those of padding are dropped.

    Returns:
      (means of the metrics, outputs float32 in the examples' order: [n ...], or a list of n arrays
      [t ...] where they are of tokens, or None).
    """
    order = batches.eval_order(examples.lengths, lengths, batch_size)
    sums: dict[str, np.ndarray] = {}
    outputs: list[Any] = [None] * len(examples.lengths)
    waiting: list[tuple[batches.BatchIndex, Any]] = []

    def collect() -> None:
        index, result = waiting.pop(0)
        means, values = jax.device_get(result)
        for name, mean in means.items():
            sums[name] = sums.get(name, 0.0) + np.array(mean, np.float64)
        if values is not None:
            for row, i in enumerate(index.indices):
                size = examples.lengths[i] if per_token else None
                outputs[i] = values[row][:size] if per_token else values[row]
        advance(len(index.indices))

    made = ((index, examples.collate(index, batch_size)) for index in order)
    for index, batch in prefetch(on_device(made)):
        waiting.append((index, step(batch)))
        if len(waiting) > 1:  # one batch is computed while the outputs of the last are read
            collect()
    while waiting:
        collect()
    assert outputs, "there are no examples"
    found: Any = outputs
    if outputs[0] is None:
        found = None
    elif not per_token:
        found = np.stack(outputs).astype(np.float32)
    return {name: float(total / weight) for name, (total, weight) in sums.items()}, found


def all_scores(
    task: Task, means: dict[str, float], outputs: Any, examples: Any
) -> dict[str, float]:
    """The mean loss and the task's scores of the outputs against the labels."""
    return {"loss": means["loss"]} | task.scores_fn(means, outputs, examples)
