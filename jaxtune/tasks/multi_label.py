"""Multi-label classification: any number of classes apply to a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean
from jaxtune.data.sources.class_sets import ClassSets, of_flags
from jaxtune.data.text import text_tables
from jaxtune.settings import LossSettings
from jaxtune.tasks import class_counts
from jaxtune.tasks.class_weights import class_weights
from jaxtune.tasks.probabilities import sigmoid
from jaxtune.tasks.records import Record, Records, class_records
from jaxtune.tasks.task import Task, TaskData, TaskLoss, TaskOutput, TaskScores
from jaxtune.training.distillation import make_binary_kl
from jaxtune.training.losses import binary_cross_entropy, make_binary_cross_entropy


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """Binary cross-entropy with the settings' options; labels are class sets, or flags [n c]."""
    counts = of_flags(labels).counts
    weights = class_weights(settings.class_weights, class_names, counts)
    return make_binary_cross_entropy(weights, settings.label_smoothing, settings.focal_gamma)


def batch_metrics(outputs: Float[Array, "b c"], batch: Batch) -> dict[str, Mean]:
    """The loss of a batch (nats, mean over the classes), as sum and weight.

    Further columns of the labels, of classes that the model does not have, are left out.
    """
    labels = batch["labels"][..., : outputs.shape[-1]]
    return {"loss": binary_cross_entropy(outputs, batch | {"labels": labels})}


def scores(means: Mapping[str, float], outputs: np.ndarray, examples: Any) -> dict[str, float]:
    """F1 and accuracy at a probability of one half, those of scikit-learn.

    Args:
      means: not read.
      outputs: logits, float32 [n c].
      examples: with `labels`, class sets, or flags [n c], 1 where a class applies; there may be
        further classes, which are never predicted.

    Returns:
      `micro_f1` over all decisions, `macro_f1` the mean over the classes (0 for a class that
      neither applies nor is predicted), `subset_accuracy` the share of rows with every class right.
    """
    del means
    counts, subset = class_counts.of_sets(of_flags(examples.labels), of_flags(outputs > 0))
    return {
        "micro_f1": counts.micro_f1,
        "macro_f1": counts.macro_f1,
        "subset_accuracy": subset,
    }


def reorder(labels: ClassSets, order: np.ndarray) -> ClassSets:
    """Classes by the model's order, and then those that it does not have."""
    place = np.concatenate([order, np.arange(len(order), labels.num_classes)]).astype(np.int32)
    return labels._replace(classes=place[labels.classes])


def decode(
    outputs: np.ndarray,
    examples: Any,
    class_names: Sequence[str],
    top_k: int | None = None,
    temperature: float = 1.0,
) -> Records:
    """The classes that apply, and the probability of each: `labels` and `probabilities`.

    Args:
      outputs: logits, float32 [n c].
      examples: not read.
      class_names: c names in the order of the outputs.
      top_k: classes whose probability is told, the likeliest first; None for all.
      temperature: that the logits are divided by, which changes probabilities alone.
    """
    del examples

    def read(logits: np.ndarray) -> tuple[Record, np.ndarray]:
        places = np.flatnonzero(logits > 0).tolist()
        return {"labels": [class_names[place] for place in places]}, sigmoid(logits)

    return class_records(outputs, class_names, top_k, read, temperature)


MULTI_LABEL = Task(
    name="multi_label",
    head="sequence",
    problem_type="multi_label_classification",
    data=TaskData(
        text_tables.CLASS_SETS, text_tables.encode, reorder=reorder, once=text_tables.once
    ),
    loss=TaskLoss(make_loss, batch_metrics, soft=make_binary_kl),
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
    output=TaskOutput(decode, ranks=True),
)
