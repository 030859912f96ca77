"""Outputs and scores over any number of examples, exact whatever the batch size."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.layout import Layout
from jaxtune.parallel.sharding import Sharding, own_rows, place_batch
from jaxtune.tasks.task import Task
from jaxtune.training.prefetch import prefetch

Advance = Callable[[int], Any]


def predict_all(
    step: Callable[[Batch], Any],
    examples: Any,
    layout: Layout,
    advance: Advance = lambda count: None,
    *,
    per_token: bool = False,
    sharding: Sharding | None = None,
) -> tuple[dict[str, float], Any]:
    """Runs a step over all examples and puts the outputs back in order.

    Args:
      step: batch -> (metrics, outputs or None), as `make_eval_step` makes with its parameters
        bound; outputs are [b ...], of packed rows with s examples [b s ...].
      examples: n of them.
      layout: how examples make batches; the last batch is filled up with weights of 0.
      advance: called with the number of examples done.
      per_token: whether the outputs are of tokens, [b t ...]; those of padding are dropped.
      sharding: of the batches on several devices; all processes get the outputs of all rows.

    Returns:
      (means of the metrics, outputs float32 in the examples' order: [n ...], or a list of n arrays
      [t ...] where they are of tokens, or None).

    Raises:
      NonFiniteError: a metric is NaN or infinite.
    """
    lengths = examples.lengths
    assert len(lengths), "there are no examples"
    sums: dict[str, np.ndarray] = {}
    outputs: Any = None
    for index, result in run_all(step, examples, layout, sharding):
        means, values = jax.device_get(result)
        for name, mean in means.items():
            sums[name] = sums.get(name, 0.0) + np.array(mean, np.float64)
        if values is not None:
            for i, output in by_example(index, values, lengths, per_token):
                if outputs is None:
                    outputs = _room(len(lengths), output, per_token)
                outputs[i] = output
        advance(len(index.indices))
    return {name: _mean(name, *sums[name]) for name in sums}, outputs


def run_all(
    step: Callable[[Batch], Any], examples: Any, layout: Layout, sharding: Sharding | None
) -> Iterator[tuple[BatchIndex, Any]]:
    """What a step gives for each batch of all examples, on the devices; arguments as above."""
    yield from _results(step, prefetch(_batches(examples, layout, sharding)))


def _room(count: int, output: np.ndarray, per_token: bool) -> Any:
    """Room for outputs like one: an array, or a list where they are of tokens."""
    return [None] * count if per_token else np.empty((count, *output.shape), np.float32)


def _results(
    step: Callable[[Batch], Any], batches: Iterable[tuple[BatchIndex, Batch]]
) -> Iterator[tuple[BatchIndex, Any]]:
    """What the step gives for each batch; one is computed while the last is read."""
    waiting = None
    for index, batch in batches:
        started = index, step(batch)
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


def _batches(
    examples: Any, layout: Layout, sharding: Sharding | None
) -> Iterator[tuple[BatchIndex, Batch]]:
    """All examples in batches on the devices; of several processes, each reads its own rows."""
    for indices in layout.eval_order(examples.lengths):
        index = layout.place(indices, examples.lengths)
        rows = own_rows(sharding, layout.num_rows(index))
        yield index, place_batch(sharding, layout.collate(examples, index, rows=rows))


def by_example(
    index: BatchIndex, values: np.ndarray, lengths: np.ndarray, per_token: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Each example of a batch with its part of the outputs.

    Args:
      index: of the batch.
      values: outputs of the batch, [b ...], [b s ...] or, of tokens, [b t ...].
      lengths: tokens of each example of the data.
      per_token: whether the outputs are of tokens.
    """
    for i, _, row, slot, start, stop in index.spans(lengths):
        if per_token:
            yield i, values[row, start:stop]
        else:
            yield i, values[row] if index.rows is None else values[row, slot]


def all_scores(
    task: Task, means: dict[str, float], outputs: Any, examples: Any
) -> dict[str, float]:
    """The mean loss and the task's scores of the outputs against the labels.

    A loss that no mean over batches can give is one of the scores.

    Raises:
      NonFiniteError: such a loss is NaN or infinite.
    """
    scores = task.scores.compute(means, outputs, examples)
    if "loss" in means:
        return {"loss": means["loss"]} | scores
    return {"loss": _mean("loss", scores["loss"], 1.0)} | scores


class NonFiniteError(UserError):
    """A loss or score of real examples is NaN or infinite."""


def _mean(name: str, total: Any, weight: Any) -> float:
    """The mean; NaN where there is nothing to take it of."""
    if not np.isfinite(total):
        raise NonFiniteError(
            f"the {name} is {float(total)} in total: the parameters are damaged, beyond what the"
            " compute dtype holds, or were trained at too high a rate."
        )
    return float(total / weight) if weight else float("nan")
