"""Embeddings: a vector of each text, near those of texts that belong with it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.core.types import LossFn
from jaxtune.data.text import group_tables
from jaxtune.data.text.grouped import GroupedExamples, GroupLabels
from jaxtune.models.pooling import EMBEDDING as HEAD
from jaxtune.settings import LossSettings
from jaxtune.tasks import pair_scores
from jaxtune.tasks.records import LazyRecords, Records
from jaxtune.tasks.task import (
    Task,
    TaskData,
    TaskLoss,
    TaskOutput,
    TaskScores,
    no_metrics,
    sums_of_batch,
)
from jaxtune.training import group_losses
from jaxtune.training.group_losses import Sizes, sizes_of


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: GroupLabels) -> LossFn:
    """The loss that the settings name, or the one that fits the data.

    Args:
      settings: of the loss.
      class_names: none.
      labels: groups of the training data, and scores where there are any.

    Raises:
      UserError: the data lacks what the loss reads.
    """
    del class_names
    chosen, scores = settings.groups, labels.values
    sizes = sizes_of(labels.groups)
    name = chosen.name or ("ranking" if scores is None else "cosent")
    _check(name, sizes, scores)
    make = {
        "ranking": partial(group_losses.make_ranking, scale=chosen.scale),
        "cosent": partial(group_losses.make_cosent, scale=chosen.scale),
        "cosine_error": group_losses.make_cosine_error,
        "triplet": partial(group_losses.make_triplet, margin=chosen.margin),
    }[name]
    dims = chosen.matryoshka_dims
    return group_losses.make_matryoshka(make(sizes), dims) if dims else make(sizes)


def _check(name: str, sizes: Sizes, scores: np.ndarray | None) -> None:
    where = f"config.loss.name is {name!r}"
    if name in ("cosent", "cosine_error") and scores is None:
        raise UserError(
            f"{where}, but the rows have no score: expected two columns of texts and one of"
            " numbers, config.data.label_column."
        )
    if name in ("ranking", "triplet") and scores is not None:
        raise UserError(
            f"{where}, but the rows are pairs with a score, of which {name} takes none: expected"
            " cosent or cosine_error, or data without a column of scores."
        )
    if name == "triplet" and sizes.least < 3:
        raise UserError(
            f"{where}, but a row has no negative: expected one at least in each row, in a third"
            " column of config.data.text_columns."
        )
    if name == "cosine_error" and scores is not None and np.abs(scores).max() > 1:
        raise UserError(
            f"{where}, but scores go from {scores.min():g} to {scores.max():g}: expected those of a"
            " cosine, from -1 to 1. Divide them, or take cosent, which reads their order alone."
        )


def scores(
    means: Mapping[str, float], outputs: np.ndarray, examples: GroupedExamples
) -> dict[str, float]:
    """Those of `pair_scores`, of pairs with a score or of anchors."""
    del means
    groups, values = examples.labels
    if values is not None:
        return pair_scores.scored_pairs(outputs, groups, values)
    return pair_scores.anchors(outputs, groups)


def scores_of(examples: GroupedExamples) -> tuple[str, ...]:
    """The names of the scores; `spearman` or `mrr` chooses the best step."""
    groups, values = examples.labels
    if values is not None:
        return ("spearman", "pearson", "loss")
    return ("mrr", "accuracy", "loss", *(("triplet_accuracy",) if groups.largest > 2 else ()))


def decode(outputs: np.ndarray, examples: Any, class_names: Sequence[str]) -> Records:
    """The vector of each text: `embedding`; of groups, that of their texts, `embeddings`."""
    del class_names
    if not isinstance(examples, GroupedExamples):
        return LazyRecords(len(outputs), lambda i: {"embedding": outputs[i].tolist()})
    offsets = examples.groups.offsets

    def of_group(i: int) -> dict[str, Any]:
        return {"embeddings": outputs[offsets[i] : offsets[i + 1]].tolist()}

    return LazyRecords(len(offsets) - 1, of_group)


EMBEDDING = Task(
    name="embedding",
    head=HEAD,
    problem_type=None,
    data=TaskData(
        group_tables.GROUPS,
        group_tables.encode,
        group_tables.read_new,
        once=group_tables.once,
    ),
    loss=TaskLoss(make_loss, no_metrics, sums=sums_of_batch),
    scores=TaskScores(
        scores,
        best="spearman",
        higher_is_better={
            **dict.fromkeys(("spearman", "pearson"), True),
            **dict.fromkeys(("mrr", "accuracy", "triplet_accuracy"), True),
            "loss": False,
        },
        of_data=scores_of,
    ),
    output=TaskOutput(decode),
)
