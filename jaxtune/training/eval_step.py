"""The evaluation and prediction steps: pure functions, jitted by whoever calls them.

Apart from the training step, so that prediction waits for no optimizer to be imported.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from jaxtune.core import trees
from jaxtune.core.types import ApplyFn, Batch, Mean, Params

EvalStep = Callable[[Params, Params, Batch], tuple[dict[str, Mean], Any]]
PredictStep = Callable[[Params, Params, Batch], Array]


def make_eval_step(
    apply_fn: ApplyFn,
    metrics_fn: Callable[[Array, Batch], dict[str, Mean]],
    fetch: Callable[[Array, Batch], Any] = lambda outputs, batch: outputs,
) -> EvalStep:
    """Makes `eval_step(params, frozen, batch) -> (metrics, outputs)`, without dropout.

    The metrics are sums and weights: add them over batches, then divide. The outputs are for
    metrics that no sum can give, such as macro F1 or a rank correlation.

    Args:
      apply_fn: the model.
      metrics_fn: sums and weights by name.
      fetch: what of the outputs is returned, such as None for a language model's.
    """

    def eval_step(params: Params, frozen: Params, batch: Batch) -> tuple[dict[str, Mean], Any]:
        outputs = apply_fn(trees.merge(params, frozen), batch, key=None, train=False)
        return metrics_fn(outputs, batch), fetch(outputs, batch)

    return eval_step


def make_predict_step(apply_fn: ApplyFn) -> PredictStep:
    """Makes `predict_step(params, frozen, batch) -> outputs [b ...]`, without dropout."""

    def predict_step(params: Params, frozen: Params, batch: Batch) -> Array:
        return apply_fn(trees.merge(params, frozen), batch, key=None, train=False)

    return predict_step
