"""From settings to everything that a run needs and does not change."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtune import optim
from jaxtune.data import batches
from jaxtune.data.examples import Examples, load_tokenizer
from jaxtune.data.text import read_text_data, tokenize_splits
from jaxtune.errors import UserError, nearest
from jaxtune.models.pretrained import Pretrained, load_pretrained, read_config
from jaxtune.models.registry import parameter_shapes
from jaxtune.report import Report
from jaxtune.settings import Settings
from jaxtune.state import TrainState, init_state
from jaxtune.tasks.registry import find_task
from jaxtune.tasks.task import Task
from jaxtune.tuning import partition
from jaxtune.tuning.registry import make_strategy
from jaxtune.types import Params

NUM_LENGTHS = 4  # padded lengths of the bucketed layout: each is one more compilation


class Run(NamedTuple):
    """A run before its first step.

    Attributes:
      settings: resolved, with the digests of weights and data.
      task: loss, metrics, decoding.
      pretrained: the model as loaded.
      tokenizer: from the model's folder.
      examples: by split.
      lengths: padded lengths in tokens, increasing.
      trainable: the trainable parameters at step 0, None where frozen.
      frozen: the frozen parameters, None where trainable.
      tx: the optimizer of the trainable ones.
      schedule: learning rate by step.
      steps_per_epoch: batches in one pass.
      num_steps: in all.
      best_metric: the score that chooses the best checkpoint.
      notes: what a person should know about the data.
    """

    settings: Settings
    task: Task
    pretrained: Pretrained
    tokenizer: Any
    examples: dict[str, Examples]
    lengths: tuple[int, ...]
    trainable: Params
    frozen: Params
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    steps_per_epoch: int
    num_steps: int
    best_metric: str
    notes: list[str]

    def init_state(self) -> TrainState:
        """The state at step 0."""
        return init_state(self.trainable, self.tx, jax.random.key(self.settings.seed))


def prepare(settings: Settings, report: Report) -> Run:
    """Reads and checks the data, loads the model, and plans the steps.

    Raises:
      UserError: whatever is wrong with the config, the data or the weights, in that order.
    """
    task = find_task(settings.task)
    best_metric = _check_metric(task, settings.train.best_metric)
    strategy = make_strategy(settings.tuning.name, _strategy_fields(settings))
    folder, family, config, _ = read_config(settings.model.path, settings.model.revision)
    check_max_length(settings.data.max_length, config.max_position_embeddings, folder)
    data = read_text_data(settings.data, regression=not _is_classification(task))
    tokenizer = load_tokenizer(folder)
    check_vocabulary(tokenizer, config.vocab_size, folder)
    dtype = jnp.dtype(settings.precision.compute_dtype)
    shapes = parameter_shapes(family.make_module(config, len(data.class_names) or 1, dtype))
    labels = partition.label(strategy, shapes)
    pretrained = load_pretrained(
        folder,
        class_names=data.class_names if _is_classification(task) else None,
        num_outputs=None if _is_classification(task) else 1,
        key=jax.random.fold_in(jax.random.key(settings.seed), _HEAD_STREAM),
        compute_dtype=dtype,
        sha256=settings.model.sha256,
    )
    examples = tokenize_splits(
        data,
        tokenizer,
        settings.data.max_length,
        pretrained.class_names,
        report.track("tokenizing"),
    )
    for part in examples.values():
        check_tokens(part, config, folder)
    trainable, frozen = partition.partition(pretrained.params, labels)
    train_size = len(examples["train"].lengths)
    steps_per_epoch = -(-train_size // settings.train.batch_size)
    num_steps = settings.train.num_steps or settings.train.num_epochs * steps_per_epoch
    schedule, tx = _optimizer(settings, labels, num_steps)
    resolved = dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, sha256=pretrained.sha256),
        data=dataclasses.replace(settings.data, sha256=data.sha256),
    )
    num_lengths = NUM_LENGTHS if settings.data.layout == "bucketed" else 1
    limit = config.max_position_embeddings
    lengths = batches.choose_lengths(examples["train"].lengths, num_lengths, limit)
    longest = max(int(part.lengths.max()) for part in examples.values())
    if longest > lengths[-1]:  # evaluation may meet a longer example than training did
        lengths = (*lengths[:-1], batches.choose_lengths(np.array([longest]), 1, limit)[0])
    return Run(
        resolved,
        task,
        pretrained,
        tokenizer,
        examples,
        lengths,
        trainable,
        frozen,
        tx,
        schedule,
        steps_per_epoch,
        num_steps,
        best_metric,
        data.notes,
    )


def check_max_length(max_length: int, limit: int, folder: Path) -> None:
    """Refuses more tokens than the model has positions for."""
    if max_length > limit:
        raise UserError(
            f"config.data.max_length is {max_length}, but {folder} has {limit} positions: expected"
            f" at most {limit}."
        )


def check_vocabulary(tokenizer: Any, vocab_size: int, folder: Path) -> None:
    """Refuses a tokenizer that gives tokens the model has no embedding for."""
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but the model has {vocab_size}"
            " word embeddings. They do not belong together."
        )


def check_tokens(examples: Examples, config: Any, folder: Path) -> None:
    """Refuses tokens and token types outside the model's tables, which XLA would not report."""
    tables = {
        "input_ids": (examples.input_ids, "vocab_size", config.vocab_size),
        "token_type_ids": (examples.token_type_ids, "type_vocab_size", config.type_vocab_size),
    }
    for name, (values, field, size) in tables.items():
        most = int(values.max(initial=0))
        if most >= size:
            raise UserError(
                f"{folder}: the tokenizer gives {name} up to {most}, but config.json has {field}"
                f" {size}: expected at most {size - 1}. The tokenizer and the model do not belong"
                " together, or the model takes no pairs of texts."
            )


_HEAD_STREAM = 2**31  # no step number reaches it, so no step shares its key with the new head


def _is_classification(task: Task) -> bool:
    return task.problem_type != "regression"


def _check_metric(task: Task, name: str | None) -> str:
    if name is None:
        return task.best_metric
    if name not in task.higher_is_better:
        raise UserError(
            f"config.train.best_metric is {name!r}: the task {task.name} has"
            f" {', '.join(task.higher_is_better)}.{nearest(name, task.higher_is_better)}"
        )
    return name


def _strategy_fields(settings: Settings) -> dict[str, Any]:
    fields = dataclasses.asdict(settings.tuning)
    del fields["name"]
    return fields


def _optimizer(
    settings: Settings, labels: Any, num_steps: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    fields = dataclasses.asdict(settings.optimizer)
    name, rate = fields.pop("name"), fields.pop("learning_rate")
    warmup_steps = round(fields.pop("warmup_fraction") * num_steps)
    schedule = optim.make_schedule(fields.pop("schedule"), rate, num_steps, warmup_steps)
    tx = optim.make_optimizer(name, schedule, partition.trainable_labels(labels), **fields)
    return schedule, tx
