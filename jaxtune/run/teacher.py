"""The teacher of a run: which model it is, and whether it can teach, before weights are read."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.batching.stream import Stream
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text.text_tables import Track
from jaxtune.models.design import Design, Outputs, choose_outputs, make_design
from jaxtune.models.observed import make_observed_apply
from jaxtune.models.registry import saved_head
from jaxtune.models.source import Source, read_source
from jaxtune.models.trunk import num_layers
from jaxtune.run.attention_choice import check_attention
from jaxtune.run.saved import saved_task
from jaxtune.settings import Settings
from jaxtune.settings.distillation import DistillationSettings
from jaxtune.tasks.registry import TASKS
from jaxtune.tasks.task import Task

_WHERE = "config.distillation.teacher"
_BY_TOKEN = ("token", "span")
"""Heads whose outputs are of tokens, which must be the same for teacher and student."""

_OF_WORDS = ("causal_lm", "masked_lm")
"""Heads with an output for each word of the vocabulary."""


class Teacher(NamedTuple):
    """A model to learn from.

    Attributes:
      source: its folder and config.
      examples: the training rows as it reads them, where it has a tokenizer or image processor of
        its own; None where it reads those of the student.
    """

    source: Source
    examples: Any = None


class States(NamedTuple):
    """Hidden states that are compared: of the student, and those of the teacher beside them."""

    student: tuple[int, ...] = ()
    teacher: tuple[int, ...] = ()


class Lessons(NamedTuple):
    """What is to be learnt, before anything is computed.

    Attributes:
      design: of the teacher.
      examples: the training rows as it reads them.
      states: hidden states that are compared.
      order: the place of each of the student's classes in the teacher's outputs; None for the same.
    """

    design: Design
    examples: Any
    states: States = States()
    order: np.ndarray | None = None


def open_teacher(settings: Settings, task: Task) -> Teacher | None:
    """The teacher that the settings name; None where they name none.

    Raises:
      UserError: no such folder, or the model of another task, or without a head.
    """
    name = settings.distillation.teacher
    if name is None:
        return None
    if task.loss.soft is None:
        able = ", ".join(t.name for t in TASKS.values() if t.loss.soft is not None)
        reason = "compares texts with each other, and has no output of each one alone to learn"
        if task.head in _OF_WORDS:
            reason = "has a vocabulary for classes, too many to keep of each token"
        raise UserError(
            f"{_WHERE} is {name!r}, but {task.name} {reason}: expected None, or a task among"
            f" {able}."
        )
    source = read_source(name)
    _, found, card = saved_task(name)
    if saved_head(source.family, source.hf_config) is None or "head" in card:
        reason = "a head of a person's own" if "head" in card else "no head"
        raise UserError(
            f"{_WHERE}: {source.path} has {reason}: expected a model fine-tuned on this"
            f" task, {task.name}, such as the model/ of a run."
        )
    if found.name != task.name:
        raise UserError(
            f"{_WHERE}: {source.path} is a model of {found.name}, but config.task is {task.name!r}:"
            " expected a teacher of the same task."
        )
    task.data.inputs.check_settings(settings.data, source.config, source.path)
    return Teacher(source)


def with_examples(
    teacher: Teacher, task: Task, processor: Any, rows: Rows, settings: Settings, track: Track
) -> Teacher:
    """The teacher with examples of its own, where it reads rows otherwise than the student.

    Args:
      teacher: from `open_teacher`.
      task: how rows become examples.
      processor: the student's tokenizer or image processor.
      rows: of training.
      settings: of the run.
      track: shows progress.

    Raises:
      UserError: other tokens, where outputs or hidden states of tokens are learnt.
    """
    source = teacher.source
    own = task.data.inputs.load(source.path, source.config)
    if _reads_alike(own, processor):
        return teacher
    if task.head in _BY_TOKEN or settings.distillation.hidden_weight:
        what = (
            "outputs" if task.head in _BY_TOKEN else "hidden states, by distillation.hidden_weight,"
        )
        what += " of each " + ("patch" if task.head == "image" else "token")
        raise UserError(
            f"{_WHERE}: {source.path} has another {_name(task)} than the student, so its tokens"
            f" are others, but its {what} are learnt: expected a teacher with the same one."
        )
    examples, _ = task.data.encode(rows._replace(labels=None), own, settings.data, track)
    task.data.inputs.check(examples, source.config, source.path)
    return teacher._replace(examples=examples)


def lessons_of(
    settings: Settings,
    task: Task,
    teacher: Teacher | None,
    student: Design,
    stream: Stream,
    depths: Sequence[int],
) -> Lessons | None:
    """What the student is to learn, once the data is read; None without a teacher.

    Args:
      settings: of the run.
      task: of both.
      teacher: from `with_examples`.
      student: the model in training.
      stream: its examples.
      depths: frozen layers below all that is trained, in each stage.

    Raises:
      UserError: the teacher has other classes, states of another shape, or cannot read the rows.
    """
    if teacher is None:
        return None
    _check_examples(teacher, task, stream.examples)
    outputs = _outputs_of(teacher, task, student.outputs)
    precision = settings.precision
    dtype, attention = jnp.dtype(precision.compute_dtype), precision.attention
    check_attention(attention, teacher.source.config, student.device)
    design = make_design(teacher.source, task.head, outputs, dtype, student.device, attention)
    states = _states_of(settings.distillation, student, design)
    _check_trained(states, depths)
    _check_states(states, student, design, stream.empty())
    order = _order_of(student.outputs.class_names, outputs.class_names)
    own = stream.examples if teacher.examples is None else teacher.examples
    return Lessons(design, own, states, order)


def _check_examples(teacher: Teacher, task: Task, train: Any) -> None:
    """Refuses examples that the teacher cannot read, or that change from epoch to epoch."""
    if train.is_random:
        field = "augmentation" if task.head == "image" else "token_dropout"
        raise UserError(
            f"config.data.{field} changes the examples in each epoch, but what {_WHERE} gives for"
            " them is computed once: leave it out."
        )
    if teacher.examples is None:
        task.data.inputs.check(train, teacher.source.config, teacher.source.path)


def _outputs_of(teacher: Teacher, task: Task, student: Outputs) -> Outputs:
    """The teacher's outputs, which must be those of the student, in whatever order.

    Raises:
      UserError: other classes, or another number of targets.
    """
    names = student.class_names or None
    found = choose_outputs(
        task.head, teacher.source.hf_config, names, None if names else student.size
    )
    if found.new_because is not None:
        wanted = ", ".join(student.class_names[:5]) or f"{student.size} outputs"
        raise UserError(
            f"{_WHERE}: {teacher.source.path} does not fit the data: {found.new_because}. Expected"
            f" a teacher with {wanted}."
        )
    return found


def _order_of(student: Sequence[str], teacher: Sequence[str]) -> np.ndarray | None:
    """The place of each of the student's classes in the teacher's outputs; None for the same."""
    if tuple(student) == tuple(teacher):
        return None
    return np.array([list(teacher).index(name) for name in student])


def _states_of(settings: DistillationSettings, student: Design, teacher: Design) -> States:
    """Which hidden states are compared.

    Raises:
      UserError: a map that names what is not there, or none where layers cannot be spread evenly.
    """
    if not settings.hidden_weight:
        return States()
    own, others = num_layers(student.module), num_layers(teacher.module)
    where = "config.distillation.layer_map"
    if not settings.layer_map:
        if others % own:
            raise UserError(
                f"{where} is (), but the teacher's {others} layers are no multiple of the student's"
                f" {own}: expected STUDENT=TEACHER for each state, such as 1=2,{own}={others}."
            )
        step = others // own
        return States(tuple(range(1, own + 1)), tuple(range(step, others + 1, step)))
    pairs = {}
    for text in settings.layer_map:
        found = re.fullmatch(r"(\d+)=(\d+)", text.strip())
        if not found or int(found[1]) > own or int(found[2]) > others or int(found[1]) in pairs:
            raise UserError(
                f"{where} has {text!r}: expected STUDENT=TEACHER, each state of the student once,"
                f" with 0 to {own} for the student and 0 to {others} for the teacher."
            )
        pairs[int(found[1])] = int(found[2])
    return States(tuple(sorted(pairs)), tuple(pairs[i] for i in sorted(pairs)))


def _check_states(states: States, student: Design, teacher: Design, batch: Any) -> None:
    """Refuses hidden states of different shapes, by tracing both models on the shapes of a batch.

    Raises:
      UserError: other widths, or states that are not of tokens.
    """
    if not states.student:
        return

    def shapes(design: Design, observed: tuple[int, ...]) -> list[tuple[int, ...]]:
        order = tuple(sorted({*observed}))
        apply_fn = make_observed_apply(design.module, 0, order)
        found: Any = jax.eval_shape(
            lambda params, batch: apply_fn(params, batch, key=None, train=False),
            design.shapes,
            jax.tree.map(jnp.asarray, batch),
        )
        return [found.states[order.index(i)].shape for i in observed]

    pairs = zip(states.student, states.teacher, strict=True)
    own, others = shapes(student, states.student), shapes(teacher, states.teacher)
    for (i, j), one, other in zip(pairs, own, others, strict=True):
        if len(one) != 3 or one != other:
            raise UserError(
                f"config.distillation.hidden_weight compares state {i} of the student, of shape"
                f" {list(one)} for a batch, with state {j} of the teacher, {list(other)}: expected"
                " [rows, tokens, width] alike. Set it to 0, or take a student as wide as its"
                " teacher, such as one of config.model.layers."
            )


def _check_trained(states: States, depths: Sequence[int]) -> None:
    """Refuses to compare states of layers that are frozen, which no training changes.

    Args:
      states: that are compared.
      depths: frozen layers below all that is trained, in each stage.
    """
    lowest, depth = min(states.student, default=0), max(depths, default=0)
    if states.student and depth and lowest <= depth:
        raise UserError(
            f"config.distillation.hidden_weight compares state {lowest} of the student, but its"
            f" lower {depth} layers are frozen: expected config.distillation.layer_map with states"
            f" from {depth + 1} on, or a strategy that trains them."
        )


def _reads_alike(teacher: Any, student: Any) -> bool:
    """Whether two tokenizers, or image processors, make the same of a row."""
    digests = [getattr(processor, "digest", processor) for processor in (teacher, student)]
    return digests[0] == digests[1]


def _name(task: Task) -> str:
    return "image processor" if task.head == "image" else "tokenizer"
