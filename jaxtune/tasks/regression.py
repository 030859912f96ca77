"""Regression of one number on a text or a pair of texts."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxtune.losses import squared_error
from jaxtune.tasks.task import Task
from jaxtune.types import Batch, Mean


def batch_metrics(outputs: Float[Array, "b 1"], batch: Batch) -> dict[str, Mean]:
    """The squared error of a batch, as sum and weight."""
    return {"loss": squared_error(outputs, batch)}


def scores(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation, by SciPy, and the mean squared error.

    Args:
      outputs: predictions, float32 [n 1].
      labels: targets, float32 [n].

    Returns:
      `pearson` and `spearman`, NaN where predictions or targets are all the same or not finite;
      `mse`.
    """
    from scipy import stats

    predicted, targets = outputs[:, 0].astype(np.float64), labels.astype(np.float64)
    pearson: Any = stats.pearsonr
    spearman: Any = stats.spearmanr
    # One of them has no spread, or training has diverged.
    undefined = not np.isfinite(predicted).all() or not np.ptp(predicted) or not np.ptp(targets)
    return {
        "pearson": float("nan") if undefined else float(pearson(predicted, targets).statistic),
        "spearman": float("nan") if undefined else float(spearman(predicted, targets).statistic),
        "mse": float(np.mean((predicted - targets) ** 2)),
    }


def decode(outputs: np.ndarray, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The predicted number: `value`."""
    del class_names
    return [{"value": float(value)} for value in outputs[:, 0]]


REGRESSION = Task(
    name="regression",
    problem_type="regression",
    loss_fn=squared_error,
    metrics_fn=batch_metrics,
    scores_fn=scores,
    best_metric="pearson",
    higher_is_better={"pearson": True, "spearman": True, "mse": False, "loss": False},
    decode=decode,
)
