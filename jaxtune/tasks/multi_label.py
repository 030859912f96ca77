"""Multi-label classification: any number of classes apply to a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean
from jaxtune.data.text import text_tables
from jaxtune.settings import LossSettings
from jaxtune.tasks.class_weights import class_weights
from jaxtune.tasks.task import Records, Task, TaskData, TaskLoss, TaskOutput, TaskScores
from jaxtune.training.losses import binary_cross_entropy, make_binary_cross_entropy


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """Binary cross-entropy with the settings' options; labels are float32 [n c]."""
    weights = class_weights(settings.class_weights, class_names, np.asarray(labels).sum(axis=0))
    return make_binary_cross_entropy(weights, settings.label_smoothing, settings.focal_gamma)


def batch_metrics(outputs: Float[Array, "b c"], batch: Batch) -> dict[str, Mean]:
    """The loss of a batch (nats, mean over the classes), as sum and weight.

    Further columns of the labels, of classes that the model does not have, are left out.
    """
    labels = batch["labels"][..., : outputs.shape[-1]]
    return {"loss": binary_cross_entropy(outputs, batch | {"labels": labels})}


def scores(means: Mapping[str, float], outputs: np.ndarray, examples: Any) -> dict[str, float]:
    """F1 and accuracy at a probability of one half, by scikit-learn.

    Args:
      means: not read.
      outputs: logits, float32 [n c].
      examples: with `labels`, float32 [n c], 1 where a class applies; there may be further
        columns, of classes that are never predicted.

    Returns:
      `micro_f1` over all decisions, `macro_f1` the mean over the classes (0 for a class that
      neither applies nor is predicted), `subset_accuracy` the share of rows with every class right.
    """
    from sklearn import metrics

    del means
    labels = examples.labels > 0.5
    predicted = np.zeros_like(labels)
    predicted[:, : outputs.shape[1]] = outputs > 0
    f1_score: Any = metrics.f1_score  # whose annotations admit no number for zero_division
    f1 = {
        f"{mean}_f1": float(f1_score(labels, predicted, average=mean, zero_division=0))
        for mean in ("micro", "macro")
    }
    return f1 | {"subset_accuracy": float((labels == predicted).all(axis=1).mean())}


def reorder(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Columns in the model's order of classes, and then those that it does not have."""
    return np.concatenate([labels[:, np.argsort(order)], labels[:, len(order) :]], axis=1)


def decode(outputs: np.ndarray, examples: Any, class_names: Sequence[str]) -> Records:
    """The classes that apply, and the probability of each: `labels` and `probabilities`."""
    del examples
    probabilities = 1.0 / (1.0 + np.exp(-np.clip(outputs.astype(np.float64), -500, 500)))
    return [
        {
            "labels": [n for n, p in zip(class_names, row, strict=True) if p > 0.5],
            "probabilities": dict(zip(class_names, row.tolist(), strict=True)),
        }
        for row in probabilities
    ]


MULTI_LABEL = Task(
    name="multi_label",
    head="sequence",
    problem_type="multi_label_classification",
    data=TaskData(text_tables.CLASS_SETS, text_tables.encode, reorder=reorder),
    loss=TaskLoss(make_loss, batch_metrics),
    scores=TaskScores(
        scores,
        best="micro_f1",
        higher_is_better={
            "micro_f1": True,
            "macro_f1": True,
            "subset_accuracy": True,
            "loss": False,
        },
    ),
    output=TaskOutput(decode),
)
