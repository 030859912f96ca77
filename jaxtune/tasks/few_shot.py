"""Few-shot classification: vectors trained by pairs of texts, and a linear classifier of them.

A step sees pairs of the labelled texts, and their cosines are to be 1 within a class and 0 between
two. The classifier is fitted on the vectors of the texts themselves wherever the model is scored.
"""

from collections.abc import Sequence

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.core.types import LossFn
from jaxtune.data.text import text_tables
from jaxtune.data.text.class_pairs import as_groups, draw_pairs
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.grouped import GroupedExamples, GroupLabels
from jaxtune.models.pooling import POOLED
from jaxtune.settings import LossSettings
from jaxtune.settings.data import SplitSettings
from jaxtune.tasks.classification import CLASSIFICATION
from jaxtune.tasks.linear_fit import fit_linear
from jaxtune.tasks.task import Task, TaskData, TaskLoss, sums_of_batch
from jaxtune.training.group_losses import make_cosine_error, sizes_of


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: GroupLabels) -> LossFn:
    """The squared error of the cosine of each pair.

    Args:
      settings: not read.
      class_names: not read.
      labels: the groups of texts.
    """
    del settings, class_names
    return make_cosine_error(sizes_of(labels.groups))


def draw(examples: Examples, settings: SplitSettings) -> tuple[GroupedExamples, list[str]]:
    """The pairs of a run, and a note on how many of how many.

    Args:
      examples: the texts of training with their classes.
      settings: `max_pairs` and `split_seed` are read.

    Raises:
      UserError: all texts are of one class.
    """
    labels = np.asarray(examples.labels)
    if len(np.unique(labels)) < 2:
        raise UserError(
            f"data[train]: all {len(labels)} rows that are left for training are of one class, but"
            " expected two at least: what config.data.validation_size, test_size and"
            " max_train_examples leave must have some of each."
        )
    pairs = draw_pairs(labels, settings.max_pairs, settings.split_seed)
    count, (same, other) = len(pairs.same) // 2, pairs.possible
    told = f"train: {2 * count:,} pairs of texts, {count:,} of one class (of {same:,} there are)"
    grouped = as_groups(examples, pairs)
    return grouped, [
        f"{told} and {count:,} of two (of {other:,}), in {len(grouped.groups.sizes):,} groups of a"
        " text with others"
    ]


FEW_SHOT = Task(
    name="few_shot",
    head=POOLED,
    problem_type=CLASSIFICATION.problem_type,
    data=TaskData(
        text_tables.CLASSES,
        text_tables.encode,
        reorder=CLASSIFICATION.data.reorder,
        once=text_tables.once,
        drawn=draw,
    ),
    loss=TaskLoss(make_loss, CLASSIFICATION.loss.metrics, sums=sums_of_batch),
    scores=CLASSIFICATION.scores,
    output=CLASSIFICATION.output,
    fit=fit_linear,
)
