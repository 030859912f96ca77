"""Regression of one or several numbers on a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean
from jaxtune.data.sources.rows import Data
from jaxtune.data.text import text_tables
from jaxtune.settings import LossSettings
from jaxtune.tasks.task import Records, Task, TaskData, TaskLoss, TaskOutput, TaskScores
from jaxtune.training.distillation import make_output_error
from jaxtune.training.losses import squared_error


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """The squared error, which has no options."""
    del settings, class_names, labels
    return squared_error


def batch_metrics(outputs: Float[Array, "b k"], batch: Batch) -> dict[str, Mean]:
    """The squared error of a batch, as sum and weight."""
    return {"loss": squared_error(outputs, batch)}


def scores(means: Mapping[str, float], outputs: np.ndarray, examples: Any) -> dict[str, float]:
    """Pearson and Spearman correlation, by SciPy, and the mean squared error.

    Args:
      means: not read.
      outputs: predictions, float32 [n k].
      examples: with `labels`, targets, float32 [n k], or [n] for one.

    Returns:
      `pearson` and `spearman`, means over the k targets, NaN where predictions or targets of one
      are all the same or not finite; `mse`.
    """
    del means
    predicted = outputs.astype(np.float64)
    targets = examples.labels.astype(np.float64).reshape(predicted.shape)
    pairs = [_correlations(predicted[:, k], targets[:, k]) for k in range(predicted.shape[1])]
    pearson, spearman = np.mean(pairs, axis=0)
    return {
        "pearson": float(pearson),
        "spearman": float(spearman),
        "mse": float(np.mean((predicted - targets) ** 2)),
    }


def _correlations(predicted: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    from scipy import stats

    # One of them has no spread, or training has diverged.
    if not np.isfinite(predicted).all() or not np.ptp(predicted) or not np.ptp(targets):
        return float("nan"), float("nan")
    pearson: Any = stats.pearsonr(predicted, targets)
    spearman: Any = stats.spearmanr(predicted, targets)
    return pearson.statistic, spearman.statistic


def decode(outputs: np.ndarray, examples: Any, class_names: Sequence[str]) -> Records:
    """The predicted number: `value`; `values` where there are several."""
    del examples, class_names
    if outputs.shape[1] > 1:
        return [{"values": row.tolist()} for row in outputs.astype(np.float64)]
    return [{"value": float(value)} for value in outputs[:, 0]]


def num_outputs(data: Data) -> int:
    """As many as targets."""
    return data.splits["train"].labels.shape[1]


REGRESSION = Task(
    name="regression",
    head="sequence",
    problem_type="regression",
    data=TaskData(text_tables.TARGETS, text_tables.encode, once=text_tables.once),
    loss=TaskLoss(make_loss, batch_metrics, soft=make_output_error),
    scores=TaskScores(
        scores,
        best="pearson",
        higher_is_better={"pearson": True, "spearman": True, "mse": False, "loss": False},
    ),
    output=TaskOutput(decode, num_outputs),
)
