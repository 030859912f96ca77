"""Reranking: how well a passage answers a query, by a model that reads both together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.core.types import LossFn
from jaxtune.data.text import pair_groups, ranking_tables
from jaxtune.data.text.grouped import GroupedExamples, GroupLabels
from jaxtune.settings import LossSettings
from jaxtune.tasks import ranking_scores
from jaxtune.tasks.records import LazyRecords, Records
from jaxtune.tasks.task import (
    Task,
    TaskData,
    TaskLoss,
    TaskOutput,
    TaskScores,
    no_metrics,
    sums_of_batch,
    sums_of_rows,
)
from jaxtune.training import ranking_losses
from jaxtune.training.group_losses import sizes_of


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: GroupLabels) -> LossFn:
    """The loss that the settings name.

    Args:
      settings: of the loss.
      class_names: none.
      labels: queries of the training data, and how relevant each passage is.

    Raises:
      UserError: the data lacks what the loss reads.
    """
    del class_names
    groups, values = labels
    assert values is not None, "passages without labels"
    if settings.groups.name == "listwise":
        if groups.largest < 2:
            raise UserError(
                "config.loss.name is 'listwise', but each query has one passage: expected several"
                " rows of a query, or config.loss.name=pointwise."
            )
        return ranking_losses.make_listwise(sizes_of(groups))
    if values.max() > 1:
        raise UserError(
            f"config.loss.name is 'pointwise', but labels go up to {values.max():g}: expected those"
            " of a probability, from 0 to 1. Divide them, or set config.loss.name=listwise, which"
            " takes any from 0."
        )
    return ranking_losses.pointwise


def choose(loss: TaskLoss, settings: LossSettings) -> TaskLoss:
    """A listwise loss reads the passages of a query together; others are drawn each by itself."""
    listwise = settings.groups.name == "listwise"
    return loss._replace(sums=sums_of_batch if listwise else sums_of_rows, together=listwise)


def scores(
    means: Mapping[str, float], outputs: np.ndarray, examples: GroupedExamples
) -> dict[str, float]:
    """Those of `ranking_scores`, whichever loss is trained on."""
    del means
    groups, labels = examples.labels
    assert labels is not None, "passages without labels"
    return ranking_scores.scores(outputs[:, 0], groups, labels)


def decode(outputs: np.ndarray, examples: Any, class_names: Sequence[str]) -> Records:
    """The output for each pair, `score`: the higher, the more relevant; of groups, `scores`.

    Of a pointwise loss, `1 / (1 + exp(-score))` is the probability that the passage is relevant.
    """
    del class_names
    if not isinstance(examples, GroupedExamples):
        return LazyRecords(len(outputs), lambda i: {"score": float(outputs[i, 0])})
    offsets = examples.groups.offsets

    def of_query(i: int) -> dict[str, Any]:
        return {"scores": outputs[offsets[i] : offsets[i + 1], 0].tolist()}

    return LazyRecords(len(offsets) - 1, of_query)


RERANKING = Task(
    name="reranking",
    head="sequence",
    problem_type=None,
    data=TaskData(
        ranking_tables.QUERIES,
        pair_groups.encode,
        ranking_tables.read_new,
        once=pair_groups.once,
    ),
    loss=TaskLoss(make_loss, no_metrics, choose=choose),
    scores=TaskScores(
        scores,
        best="ndcg@10",
        higher_is_better={"ndcg@10": True, "mrr@10": True, "map": True, "loss": False},
    ),
    output=TaskOutput(decode, num_outputs=lambda data: 1),
)
