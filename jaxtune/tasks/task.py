"""What a task is: its data, its loss, its metrics, and how its outputs read."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Array

from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Batch, LossFn, Mean
from jaxtune.data.batching.groups import Groups
from jaxtune.data.inputs import TEXT, Inputs
from jaxtune.data.sources.rows import Data, Reader, Rows
from jaxtune.data.sources.table import Table
from jaxtune.data.text import text_tables
from jaxtune.data.text.text_tables import Track
from jaxtune.settings import LossSettings
from jaxtune.settings.data import DataSettings, SplitSettings
from jaxtune.tasks.records import LazyRecords, Record, Records

if TYPE_CHECKING:
    from jaxtune.training.step import PartKey, SumsFn

Encode = Callable[[Rows, Any, DataSettings, Track], tuple[Any, list[str]]]
"""(rows, tokenizer or image processor, settings, progress) -> (examples, notes for a person)."""


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


def as_read(examples: Any, settings: SplitSettings) -> tuple[Any, list[str]]:
    """The examples themselves."""
    del settings
    return examples, []


def as_they_are(outputs: Array, batch: Batch) -> Array:
    """All outputs."""
    del batch
    return outputs


def whole_outputs(apply_fn: ApplyFn) -> ApplyFn:
    """A model that gives all outputs."""
    return apply_fn


def no_metrics(outputs: Any, batch: Batch) -> dict[str, Mean]:
    """None: a batch of an evaluation need not have whole groups. The scores have the loss."""
    del outputs, batch
    return {}


def sums_of_rows(
    apply_fn: ApplyFn, loss_fn: LossFn, num_microbatches: int, part_key: "PartKey"
) -> "SumsFn":
    """`training.step.make_sums`, of losses that add up over rows."""
    from jaxtune.training.step import make_sums  # prediction waits for no optimizer

    return make_sums(apply_fn, loss_fn, num_microbatches, part_key)


def sums_of_batch(
    apply_fn: ApplyFn, loss_fn: LossFn, num_microbatches: int, part_key: "PartKey"
) -> "SumsFn":
    """`training.joint_sums.make_joint_sums`, of losses that read all outputs of a batch."""
    from jaxtune.training.joint_sums import make_joint_sums

    return make_joint_sums(apply_fn, loss_fn, num_microbatches, part_key)


def as_named(loss: "TaskLoss", settings: LossSettings) -> "TaskLoss":
    """The loss as it is."""
    del settings
    return loss


class TaskData(NamedTuple):
    """What is read, and how it becomes examples.

    Attributes:
      reader: how labelled data is read.
      encode: rows -> examples.
      read_new: (file, folder or table, columns, encoding) -> rows without labels, to predict on.
      inputs: texts or images.
      reorder: (labels, index of each class of the data in the model's order) -> labels.
      resolve: (settings, training rows) -> the settings with what follows from the data.
      once: a folder -> those of these fields, by name, that keep there what is dear to make; None
        where nothing is.
      drawn: (training examples, settings) -> what steps draw of them, and notes for a person.
    """

    reader: Reader
    encode: Encode
    read_new: Callable[[Path | Table, Sequence[str], str], Rows] = text_tables.read_new
    inputs: Inputs = TEXT
    reorder: Callable[[Any, np.ndarray], Any] = unchanged
    resolve: Callable[[DataSettings, Rows], DataSettings] = as_set
    once: Callable[[Path], Mapping[str, Any]] | None = None
    drawn: Callable[[Any, SplitSettings], tuple[Any, list[str]]] = as_read


class TaskLoss(NamedTuple):
    """What is minimised.

    Attributes:
      make: (settings, class names, training labels) -> the loss.
      metrics: (outputs, batch) -> sums and weights that add up over batches, by name; the plain
        loss is one of them, `loss`.
      read: the model -> the model that gives what loss, metrics and `fetch` take, where that is
        less than all outputs.
      sums: (model, loss, microbatches, key of each) -> the sums of a step: `sums_of_rows` or
        `sums_of_batch`.
      together: whether the texts of a group are drawn into one batch, where there are groups.
      choose: (this, settings) -> this with what follows from the settings of the loss.
      soft: (temperature) -> the loss between the outputs and those of a teacher; None where none is
        learnt from.
    """

    make: Callable[[LossSettings, Sequence[str], Any], LossFn]
    metrics: Callable[[Any, Batch], dict[str, Mean]]
    read: Callable[[ApplyFn], ApplyFn] = whole_outputs
    sums: Callable[[ApplyFn, LossFn, int, "PartKey"], "SumsFn"] = sums_of_rows
    together: bool = True
    choose: Callable[["TaskLoss", LossSettings], "TaskLoss"] = as_named
    soft: Callable[[float], LossFn] | None = None


class TaskScores(NamedTuple):
    """How good the outputs are.

    Attributes:
      compute: (means of the metrics, outputs of all examples, examples) -> scores, by name.
      best: the score that chooses the best checkpoint where the config names none.
      higher_is_better: direction by score name.
      of_data: (validation examples) -> the scores that are told of such data, of which the first
        takes the place of `best`; None where all are told of any.
    """

    compute: Callable[[Mapping[str, float], Any, Any], dict[str, float]]
    best: str
    higher_is_better: Mapping[str, bool]
    of_data: Callable[[Any], tuple[str, ...]] | None = None


class TaskOutput(NamedTuple):
    """What the head gives, and how it reads.

    Attributes:
      decode: (outputs of all examples, examples, class names) -> a record for each row.
      num_outputs: of a head whose outputs are not classes; None where they are.
      fetch: what of a batch's outputs is brought to the host; its first axis is b.
      per_token: whether the fetched outputs are of tokens, [b t ...].
      ranks: whether outputs are logits of classes, and `decode` takes a `top_k`, how many classes
        it tells of, and a `temperature`.
    """

    decode: Callable[..., Records]
    num_outputs: Callable[[Data], int | None] = no_outputs
    fetch: Callable[[Any, Batch], Array | None] = as_they_are
    per_token: bool = False
    ranks: bool = False


class Task(NamedTuple):
    """One kind of thing to learn, as data.

    Attributes:
      name: as `config.task` spells it.
      head: the head of a model family that it needs.
      problem_type: as transformers spells it in `config.json`; None where it does not.
      data: what is read.
      loss: what is minimised.
      scores: how good the outputs are.
      output: how they read.
      fit: (vectors [n d], classes [n], their number) -> kernel and bias of a head that no step
        trains; None where all is trained.
    """

    name: str
    head: str
    problem_type: str | None
    data: TaskData
    loss: TaskLoss
    scores: TaskScores
    output: TaskOutput
    fit: Callable[[Any, Any, int], tuple[Any, Any]] | None = None


_KEPT, _HOLDERS = ("id", "file"), (str, list, dict)  # of a record without an answer


def records_of(
    task: Task,
    outputs: Any,
    examples: Any,
    class_names: Sequence[str],
    rows: Rows,
    top_k: int | None = None,
    temperature: float | None = None,
) -> Records:
    """A record for each row; of one without an answer its values are empty.

    Args:
      task: decodes the outputs.
      outputs: of all examples.
      examples: of the rows.
      class_names: in the order of the outputs.
      rows: where any of them has no answer, each record has a `reason`, None where it has one.
      top_k: classes whose probability is told; None for all.
      temperature: of the probabilities, of a task that ranks classes; None for none.

    Raises:
      UserError: `top_k` of a task that ranks no classes.
    """
    decode = task.output.decode
    if top_k is not None:
        check_top_k(task, top_k)
        decode = partial(decode, top_k=top_k)
    if temperature is not None and task.output.ranks:
        decode = partial(decode, temperature=temperature)
    records, reasons = decode(outputs, examples, class_names), rows.reasons
    if reasons is None:
        return records

    def with_reason(i: int) -> Record:
        return (_emptied(records[i]) if reasons[i] else records[i]) | {"reason": reasons[i] or None}

    return LazyRecords(len(records), with_reason)


def check_top_k(task: Task, top_k: int) -> None:
    """Refuses to tell the likeliest classes where there is none, or of none.

    Raises:
      UserError: the task ranks no classes, or less than one.
    """
    if not task.output.ranks:
        raise UserError(f"top_k is {top_k}, but {task.name} ranks no classes: leave it out.")
    if top_k < 1:
        raise UserError(f"top_k is {top_k}: expected at least 1.")


def _emptied(record: dict[str, Any]) -> dict[str, Any]:
    """A record with an empty text, list or mapping in the place of each, and None for a number."""
    return {
        name: value if name in _KEPT else type(value)() if isinstance(value, _HOLDERS) else None
        for name, value in record.items()
    }


def minimising(task: Task, settings: LossSettings) -> Task:
    """The task with the loss that the settings choose among its own."""
    return task._replace(loss=task.loss.choose(task.loss, settings))


def drawn_together(task: Task, examples: Any) -> Groups | None:
    """The groups whose texts are drawn into one batch of training; None where there are none."""
    return getattr(examples, "groups", None) if task.loss.together else None


def keeping(task: Task, folder: Path | None) -> Task:
    """The task with what is dear to make of its data kept in `folder`, where there is one."""
    if folder is None or task.data.once is None:
        return task
    return task._replace(data=task.data._replace(**task.data.once(folder)))
