"""Single-label classification of a text or a pair of texts."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtune.losses import cross_entropy
from jaxtune.tasks.task import Task
from jaxtune.types import Batch, Mean, weighted_mean


def batch_metrics(outputs: Float[Array, "b c"], batch: Batch) -> dict[str, Mean]:
    """Loss (nats) and accuracy (0 to 1) of a batch, as sums and weights."""
    correct = jnp.argmax(outputs, axis=-1) == batch["labels"]
    return {
        "loss": cross_entropy(outputs, batch),
        "accuracy": weighted_mean(correct, batch["weight"]),
    }


def scores(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews correlation, by scikit-learn.

    Args:
      outputs: logits, float32 [n c].
      labels: class indices, int32 [n].

    Returns:
      `accuracy`; `macro_f1`, the mean of F1 over the classes that occur in labels or predictions;
      `mcc`, from -1 to 1, and 0 where labels and predictions are all one class.
    """
    from sklearn import metrics

    predicted = np.argmax(outputs, axis=-1)
    one_class = np.ptp(np.concatenate([labels, predicted])) == 0  # of which scikit-learn warns
    return {
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "macro_f1": float(metrics.f1_score(labels, predicted, average="macro")),
        "mcc": 0.0 if one_class else float(metrics.matthews_corrcoef(labels, predicted)),
    }


def decode(outputs: np.ndarray, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The likeliest class and the probability of each: `label` and `probabilities`."""
    logits = outputs.astype(np.float64)
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = exps / exps.sum(axis=-1, keepdims=True)
    return [
        {
            "label": class_names[int(np.argmax(row))],
            "probabilities": dict(zip(class_names, row.tolist(), strict=True)),
        }
        for row in probabilities
    ]


CLASSIFICATION = Task(
    name="classification",
    problem_type="single_label_classification",
    loss_fn=cross_entropy,
    metrics_fn=batch_metrics,
    scores_fn=scores,
    best_metric="accuracy",
    higher_is_better={"accuracy": True, "macro_f1": True, "mcc": True, "loss": False},
    decode=decode,
)
