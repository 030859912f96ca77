"""Single-label classification of a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean, weighted_mean, weights
from jaxtune.data.text import text_tables
from jaxtune.settings import LossSettings
from jaxtune.tasks import class_counts
from jaxtune.tasks.class_weights import class_weights
from jaxtune.tasks.probabilities import softmax
from jaxtune.tasks.records import Record, Records, class_records
from jaxtune.tasks.task import Task, TaskData, TaskLoss, TaskOutput, TaskScores
from jaxtune.training.distillation import make_class_kl
from jaxtune.training.losses import cross_entropy, make_cross_entropy


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """Cross-entropy with the settings' options.

    Args:
      settings: of the loss.
      class_names: c names in the order of the outputs.
      labels: of the training rows, int32 [n]; `balanced` weights follow from them.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    weights = class_weights(settings.class_weights, class_names, counts)
    return make_cross_entropy(weights, settings.label_smoothing, settings.focal_gamma)


def batch_metrics(outputs: Float[Array, "b *t c"], batch: Batch) -> dict[str, Mean]:
    """Loss (nats) and accuracy (0 to 1) of examples, or of scored tokens, as sums and weights."""
    correct = jnp.argmax(outputs, axis=-1) == batch["labels"]
    return {
        "loss": cross_entropy(outputs, batch),
        "accuracy": weighted_mean(correct, weights(batch, correct.shape)),
    }


def class_metrics(outputs: Float[Array, "b c"], batch: Batch) -> dict[str, Mean]:
    """`batch_metrics` where an example may have a class that the model does not have.

    It counts as an error in the accuracy, and has no part in the loss.
    """
    found, labels = batch_metrics(outputs, batch), batch["labels"]
    known = weights(batch, labels.shape) * (labels < outputs.shape[-1])
    labels = jnp.minimum(labels, outputs.shape[-1] - 1)
    return found | {"loss": cross_entropy(outputs, batch | {"labels": labels, "weight": known})}


def scores(means: Mapping[str, float], outputs: np.ndarray, examples: Any) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews correlation, those of scikit-learn.

    Args:
      means: not read.
      outputs: logits, float32 [n c].
      examples: with `labels`, class indices, int32 [n]; those beyond c are never predicted.

    Returns:
      `accuracy`; `macro_f1`, the mean of F1 over the classes that occur in labels or predictions;
      `mcc`, from -1 to 1, and 0 where labels and predictions are all one class.
    """
    del means
    labels, predicted = examples.labels, np.argmax(outputs, axis=-1)
    counts = class_counts.of_classes(labels, predicted)
    return {
        "accuracy": float(np.mean(labels == predicted)),
        "macro_f1": counts.occurring().macro_f1,
        "mcc": counts.matthews(),
    }


def reorder(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Class indices in the model's order; those of classes that it does not have stay."""
    beyond = np.arange(len(order), max(labels.max(initial=0) + 1, len(order)), dtype=order.dtype)
    return np.concatenate([order, beyond])[labels]


def decode(
    outputs: np.ndarray,
    examples: Any,
    class_names: Sequence[str],
    top_k: int | None = None,
    temperature: float = 1.0,
) -> Records:
    """The likeliest class and the probability of each: `label` and `probabilities`.

    Args:
      outputs: logits, float32 [n c].
      examples: not read.
      class_names: c names in the order of the outputs.
      top_k: classes whose probability is told, the likeliest first; None for all.
      temperature: that the logits are divided by, which changes probabilities alone.
    """
    del examples

    def read(logits: np.ndarray) -> tuple[Record, np.ndarray]:
        return {"label": class_names[int(np.argmax(logits))]}, softmax(logits)

    return class_records(outputs, class_names, top_k, read, temperature)


CLASSIFICATION = Task(
    name="classification",
    head="sequence",
    problem_type="single_label_classification",
    data=TaskData(text_tables.CLASSES, text_tables.encode, reorder=reorder, once=text_tables.once),
    loss=TaskLoss(make_loss, class_metrics, soft=make_class_kl),
    scores=TaskScores(
        scores,
        best="accuracy",
        higher_is_better={"accuracy": True, "macro_f1": True, "mcc": True, "loss": False},
    ),
    output=TaskOutput(decode, ranks=True),
)
