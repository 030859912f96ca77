"""Multiple choice: which of several texts goes with a prompt."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxtune.core.types import LossFn
from jaxtune.data.batching.groups import Groups
from jaxtune.data.text import choice_tables, pair_groups
from jaxtune.data.text.grouped import GroupedExamples, GroupLabels
from jaxtune.models.choice import CHOICE as HEAD
from jaxtune.settings import LossSettings
from jaxtune.tasks.probabilities import logsumexp, softmax
from jaxtune.tasks.records import LazyRecords, Record, Records
from jaxtune.tasks.task import (
    Task,
    TaskData,
    TaskLoss,
    TaskOutput,
    TaskScores,
    no_metrics,
    sums_of_batch,
)
from jaxtune.training.group_losses import sizes_of
from jaxtune.training.ranking_losses import make_listwise


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: GroupLabels) -> LossFn:
    """The cross-entropy of the right choice among those of its prompt, which has no options."""
    del settings, class_names
    return make_listwise(sizes_of(labels.groups))


def by_group(values: Float[np.ndarray, " N"], groups: Groups, fill: float) -> np.ndarray:
    """Values of the members of n groups, float64 [n m]; `fill` beyond the last of each."""
    table = np.full((len(groups.sizes), groups.largest), fill)
    texts = np.arange(len(values))
    table[groups.of(texts), groups.places(texts)] = values
    return table


def scores(
    means: Mapping[str, float], outputs: np.ndarray, examples: GroupedExamples
) -> dict[str, float]:
    """How often the right choice has the highest score, and its cross-entropy.

    Args:
      means: not read.
      outputs: scores, float32 [N 1].
      examples: groups, with labels that are 1 at the right choice.

    Returns:
      `accuracy`, where of equal scores the first is chosen; `loss`, in nats.
    """
    del means
    groups, labels = examples.labels
    assert labels is not None, "choices without labels"
    z = by_group(outputs[:, 0], groups, -np.inf)
    right = by_group(labels, groups, 0.0).argmax(1)
    own = z[np.arange(len(z)), right]
    return {
        "accuracy": float(np.mean(z.argmax(1) == right)),
        "loss": float(np.mean(logsumexp(z) - own)),
    }


def decode(outputs: np.ndarray, examples: GroupedExamples, class_names: Sequence[str]) -> Records:
    """The likeliest choice of each prompt: `label`, its number from 0, `answer`, its text.

    And `probabilities`, of each choice.
    """
    del class_names
    offsets, texts = examples.groups.offsets, examples.info

    def record(i: int) -> Record:
        first = int(offsets[i])
        z = outputs[first : int(offsets[i + 1]), 0].astype(np.float64)
        best = int(z.argmax())
        told = {"label": best, "answer": texts[first + best]}
        return told | {"probabilities": softmax(z).tolist()}

    return LazyRecords(len(offsets) - 1, record)


MULTIPLE_CHOICE = Task(
    name="multiple_choice",
    head=HEAD,
    problem_type=None,
    data=TaskData(
        choice_tables.CHOICES,
        pair_groups.encode,
        choice_tables.read_new,
        once=pair_groups.once,
    ),
    loss=TaskLoss(make_loss, no_metrics, sums=sums_of_batch),
    scores=TaskScores(scores, best="accuracy", higher_is_better={"accuracy": True, "loss": False}),
    output=TaskOutput(decode, num_outputs=lambda data: 1),
)
