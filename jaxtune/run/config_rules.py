"""What the fields of the settings ask of each other, beyond the range of each."""

from collections.abc import Iterator
from typing import Any

from jaxtune.run.services import PACKAGES
from jaxtune.settings import GroupLossSettings, LossSettings, Settings
from jaxtune.settings.data import SplitSettings
from jaxtune.settings.dicts import to_dict
from jaxtune.settings.distillation import DistillationSettings
from jaxtune.settings.fields import is_code

Rule = tuple[bool, str, Any, str]
"""(whether a field fits the others, its name, its value, what was expected)."""


def rules(settings: Settings) -> Iterator[Rule]:
    """What fields ask of each other, in the order in which it is told.

    Args:
      settings: whose fields are each in range.
    """
    train, steps = settings.train, settings.profile.steps
    if settings.task == "question_answering":
        length, stride = settings.data.tokens.max_length, settings.data.answers.doc_stride
        yield length >= 32, "data.max_length", length, "at least 32 tokens"
        yield (
            stride <= length // 2,
            "data.doc_stride",
            stride,
            f"at most half of max_length {length}",
        )
    yield from _rules_of_code(settings)
    yield from _rules_of_classes(settings)
    yield from _rules_of_groups(settings)
    yield from _rules_of_teacher(settings)
    divides = train.batch_size % train.num_microbatches == 0
    divisor = f"a number that divides train.batch_size {train.batch_size}"
    yield divides, "train.num_microbatches", train.num_microbatches, divisor
    for name in train.trackers or ():
        expected = f"names among {', '.join(PACKAGES)}"
        yield name in PACKAGES, "train.trackers", train.trackers, expected
    if steps is not None:
        good = len(steps) == 2 and 0 <= steps[0] < steps[1]
        yield good, "profile.steps", steps, "None or START,STOP with 0 <= START < STOP"
        most = f"at most train.num_steps {train.num_steps}"
        yield train.num_steps is None or steps[1] <= train.num_steps, "profile.steps", steps, most
    sizes = {name: getattr(settings.parallel, name) for name in ("data", "fsdp", "tensor")}
    for name, size in sizes.items():
        good = size >= 1 or (size == -1 and [*sizes.values()].count(-1) == 1)
        expected = "at least 1, or -1 for the rest on one axis alone"
        yield good, f"parallel.{name}", size, expected


_HEADED = (
    *("classification", "multi_label", "regression", "token_classification"),
    "image_classification",
)
"""Tasks whose head may be a person's own."""


_SINGLE = ("classification", "few_shot")
"""Tasks with one class for each text."""


def _rules_of_classes(settings: Settings) -> Iterator[Rule]:
    """As `rules`, of how much rare classes count."""
    power, weights = settings.data.splits.class_sampling, settings.loss.class_weights
    single = settings.task in ("classification", "image_classification")
    expected = f"0, as {settings.task} has no one class for each row"
    yield single or not power, "data.class_sampling", power, expected
    none, expected = settings.data.columns.no_label, f"(), as task is {settings.task!r}"
    yield settings.task in _SINGLE or not none, "data.no_label", none, expected
    expected = f"no 'balanced', as data.class_sampling {power:g} brings rare classes oftener"
    yield "balanced" not in weights or not power, "loss.class_weights", weights, expected


_GROUPED = {
    "embedding": ("ranking", "cosent", "cosine_error", "triplet"),
    "few_shot": ("cosine_error",),
    "reranking": ("pointwise", "listwise"),
    "multiple_choice": (),
}
"""Tasks whose texts are compared with each other, and the names of their losses."""


def _rules_of_groups(settings: Settings) -> Iterator[Rule]:
    """As `rules`, of what belongs to texts that are compared with each other."""
    loss, groups, own = settings.loss, settings.loss.groups, settings.task == "embedding"
    expected, names = f"its default, as task is {settings.task!r}", _GROUPED.get(settings.task, ())
    if settings.task in _GROUPED:
        for field in ("class_weights", "label_smoothing", "focal_gamma"):
            value = getattr(loss, field)
            yield value == getattr(LossSettings(), field), f"loss.{field}", value, expected
    told = f"one of {', '.join(names)}, as task is {settings.task!r}" if names else expected
    yield groups.name in (None, *names), "loss.name", groups.name, told
    if not own:
        for field, default in to_dict(GroupLossSettings()).items():
            value = getattr(groups, field)
            yield field == "name" or value == default, f"loss.{field}", value, expected
        for field in ("pooling", "normalize"):
            value = getattr(settings.model, field)
            fits = value is None or settings.task == "few_shot"
            yield fits, f"model.{field}", value, expected
        for field in ("query_prompt", "document_prompt"):
            value = getattr(settings.data.tokens, field)
            yield value is None, f"data.{field}", value, expected
    columns = settings.data.columns.text_columns
    if settings.task == "few_shot":
        told = "one name, as each text has a vector of its own"
        yield len(columns) == 1, "data.text_columns", columns, told
    most, usual = settings.data.splits.max_pairs, SplitSettings().max_pairs
    yield settings.task == "few_shot" or most == usual, "data.max_pairs", most, expected
    few = settings.task in _GROUPED or len(columns) <= 2
    yield few, "data.text_columns", columns, "one or two names"
    column = settings.data.columns.group_column
    yield column is None or settings.task == "reranking", "data.group_column", column, expected
    dims = groups.matryoshka_dims
    good = len({*dims}) == len(dims) and all(dim >= 1 for dim in dims)
    yield good, "loss.matryoshka_dims", dims, "different whole numbers from 1"


def _rules_of_teacher(settings: Settings) -> Iterator[Rule]:
    """As `rules`, of what is learnt from a teacher."""
    own, loss, train = settings.distillation, settings.loss, settings.train
    if own.teacher is None:
        for field, default in to_dict(DistillationSettings()).items():
            expected = f"{default!r}, as distillation.teacher names none"
            value = getattr(own, field)
            yield value == default, f"distillation.{field}", value, expected
        return
    taught = own.alpha or own.hidden_weight
    yield bool(taught), "distillation.alpha", own.alpha, "above 0, or a distillation.hidden_weight"
    mapped = own.hidden_weight or not own.layer_map
    expected = "() as distillation.hidden_weight is 0"
    yield bool(mapped), "distillation.layer_map", own.layer_map, expected
    expected = "() with a teacher, whose loss weighs each row alike"
    yield not loss.class_weights, "loss.class_weights", loss.class_weights, expected
    expected = "None with a teacher, which is learnt beside the task's own loss"
    yield loss.function is None, "loss.function", loss.function, expected
    again = train.gradient_checkpointing and own.hidden_weight
    expected = "0 with train.gradient_checkpointing, which keeps no hidden states"
    yield not again, "distillation.hidden_weight", own.hidden_weight, expected


def _rules_of_code(settings: Settings) -> Iterator[Rule]:
    """As `rules`, of functions of a person's own and what goes with them."""
    for field in ("scores", "hooks"):
        names = getattr(settings.train, field)
        yield all(map(is_code, names)), f"train.{field}", names, "MODULE:FUNCTION, joined by commas"
    loss, optimizer = settings.loss, settings.optimizer
    headed = settings.model.head is None or settings.task in _HEADED
    yield headed, "model.head", settings.model.head, f"None, as task is {settings.task!r}"
    if loss.function is not None:
        expected = "its default, as loss.function takes the place of the task's loss"
        typed = to_dict(loss)
        for field, default in to_dict(LossSettings()).items():
            value = typed[field]
            yield field == "function" or value == default, f"loss.{field}", value, expected
    alone = is_code(optimizer.name) or not optimizer.arguments
    expected = "() but with an optimizer.name such as optax:lion"
    yield alone, "optimizer.arguments", optimizer.arguments, expected
    falls = optimizer.schedule in ("linear", "cosine") or not optimizer.final_fraction
    expected = f"0, as optimizer.schedule is {optimizer.schedule!r}"
    yield falls, "optimizer.final_fraction", optimizer.final_fraction, expected
