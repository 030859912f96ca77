"""Outputs and scores over any number of examples, exact whatever the batch size."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxtune.data import batches
from jaxtune.data.examples import Examples
from jaxtune.tasks.task import Task

Advance = Callable[[int], Any]


def predict_all(
    step: Callable[[dict[str, np.ndarray]], Any],
    examples: Examples,
    lengths: tuple[int, ...],
    batch_size: int,
    pad_token_id: int,
    advance: Advance = lambda count: None,
) -> tuple[dict[str, float], np.ndarray]:
    """Runs a step over all examples, longest last, and puts the outputs back in order.

    Args:
      step: batch -> (metrics, outputs [b c]), as `make_eval_step` makes with its parameters bound.
      examples: n of them.
      lengths: padded lengths to choose from, in tokens.
      batch_size: examples a step; the last batch is filled with rows of weight 0.
      pad_token_id: fills the rows.
      advance: called with the number of examples done.

    Returns:
      (means of the metrics over the n examples, outputs float32 [n c] in the examples' order).
    """
    order = batches.eval_order(examples.lengths, lengths, batch_size)
    sums: dict[str, np.ndarray] = {}
    outputs: np.ndarray | None = None
    waiting: list[tuple[batches.BatchIndex, Any]] = []

    def collect() -> None:
        nonlocal outputs
        index, result = waiting.pop(0)
        means, values = jax.device_get(result)
        for name, mean in means.items():
            sums[name] = sums.get(name, 0.0) + np.array(mean, np.float64)
        if outputs is None:
            outputs = np.zeros((len(examples.lengths), values.shape[1]), np.float32)
        outputs[index.indices] = values[: len(index.indices)]
        advance(len(index.indices))

    for index in order:
        batch = batches.collate(examples, index, batch_size, pad_token_id)
        waiting.append((index, step(batch)))
        if len(waiting) > 1:  # one batch is computed while the next is made
            collect()
    while waiting:
        collect()
    assert outputs is not None, "there are no examples"
    return {name: float(total / weight) for name, (total, weight) in sums.items()}, outputs


def all_scores(
    task: Task, means: dict[str, float], outputs: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """The mean loss and the task's scores of the outputs against the labels."""
    return {"loss": means["loss"]} | task.scores_fn(outputs, labels)
