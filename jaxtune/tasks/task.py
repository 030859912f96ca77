"""What a task is: its data, its loss, its metrics, and how its outputs read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from jaxtune.core.types import Batch, LossFn, Mean
from jaxtune.data.inputs import TEXT, Inputs
from jaxtune.data.sources.rows import Data, Reader, Rows
from jaxtune.data.sources.table import Table
from jaxtune.data.text import text_tables
from jaxtune.data.text.text_tables import Track
from jaxtune.settings import LossSettings
from jaxtune.settings.data import DataSettings

Encode = Callable[[Rows, Any, DataSettings, Track], tuple[Any, list[str]]]
"""(rows, tokenizer or image processor, settings, progress) -> (examples, notes for a person)."""

Records = list[dict[str, Any]]
"""One JSON-like record for each row that was predicted."""


def no_outputs(data: Data) -> int | None:
    """A head with one output for each class."""
    del data


def unchanged(labels: Any, order: np.ndarray) -> Any:
    """Labels that name no classes."""
    del order
    return labels


def as_set(settings: DataSettings, train: Rows) -> DataSettings:
    """The settings as they are."""
    del train
    return settings


def as_they_are(outputs: Array, batch: Batch) -> Array:
    """All outputs."""
    del batch
    return outputs


class Task(NamedTuple):
    """One kind of thing to learn, as data.

    Attributes:
      name: as `config.task` spells it.
      head: the head of a model family that it needs.
      problem_type: as transformers spells it in `config.json`; None where it does not.
      reader: how its data is read.
      encode: rows -> examples.
      make_loss: (settings, class names, training labels) -> the loss to minimise.
      metrics_fn: sums and weights that add up over batches, by name; `loss` is one of them.
      scores_fn: (means of the metrics, outputs of all examples, examples) -> scores, by name.
      best_metric: the score that chooses the best checkpoint where the config names none.
      higher_is_better: direction by score name.
      decode: (outputs of all examples, examples, class names) -> a record for each row.
      read_new: (file, folder or table, columns, encoding) -> rows without labels, to predict on.
      inputs: texts or images.
      num_outputs: of a head whose outputs are not classes; None where they are.
      reorder: (labels, index of each class of the data in the model's order) -> labels.
      fetch: what of a batch's outputs is brought to the host; its first axis is b.
      resolve: (settings, training rows) -> the settings with what follows from the data.
      per_token: whether the fetched outputs are of tokens, [b t ...].
    """

    name: str
    head: str
    problem_type: str | None
    reader: Reader
    encode: Encode
    make_loss: Callable[[LossSettings, Sequence[str], Any], LossFn]
    metrics_fn: Callable[[Array, Batch], dict[str, Mean]]
    scores_fn: Callable[[Mapping[str, float], Any, Any], dict[str, float]]
    best_metric: str
    higher_is_better: Mapping[str, bool]
    decode: Callable[[Any, Any, Sequence[str]], Records]
    read_new: Callable[[Path | Table, Sequence[str], str], Rows] = text_tables.read_new
    inputs: Inputs = TEXT
    num_outputs: Callable[[Data], int | None] = no_outputs
    reorder: Callable[[Any, np.ndarray], Any] = unchanged
    fetch: Callable[[Array, Batch], Array | None] = as_they_are
    resolve: Callable[[DataSettings, Rows], DataSettings] = as_set
    per_token: bool = False


def keeping_tokens(task: Task, folder: Path | None) -> Task:
    """The task with its tokens kept in `folder`, where it has one and turns whole texts to them."""
    if folder is None or task.encode is not text_tables.encode:
        return task
    return task._replace(encode=text_tables.encode_once(folder))
