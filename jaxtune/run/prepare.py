"""From settings to everything that a run needs and does not change."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtune.analysis.targets import Target
from jaxtune.core import trees
from jaxtune.core.device import this_device
from jaxtune.core.errors import UserError
from jaxtune.core.types import LossFn, Params
from jaxtune.data.batching.stream import Stream
from jaxtune.data.sources.rows import read_data
from jaxtune.data.sources.table import Table
from jaxtune.frozen.plan import TrunkPlan, plan_trunk
from jaxtune.models.design import Design, Outputs, choose_outputs, make_design
from jaxtune.models.family import check_shared_heads, with_statistics
from jaxtune.models.kept_layers import keep_layers
from jaxtune.models.own_head import check_names, with_own_head
from jaxtune.models.pooling import EMBEDDING, POOLING_HEADS, with_pooling
from jaxtune.models.pretrained import Pretrained, load_weights, outline_weights
from jaxtune.models.recompute import make_recomputing_apply
from jaxtune.models.registry import find_head
from jaxtune.models.source import Source, read_source
from jaxtune.models.trunk import num_layers
from jaxtune.parallel.sharding import Sharding, check_devices, place, put
from jaxtune.run.attention_choice import check_attention
from jaxtune.run.base_digests import base_digests, check_base
from jaxtune.run.console import Report
from jaxtune.run.encoding import encode_splits, held_of
from jaxtune.run.layouts import choose_layouts, sampling_of
from jaxtune.run.lesson import attend
from jaxtune.run.new_parts import with_new_parts
from jaxtune.run.own_goals import (
    hooks_of,
    loss_of,
    make_loss,
    metric_of,
    metric_of_data,
    scored,
)
from jaxtune.run.own_heads import head_of, told_of_head
from jaxtune.run.own_updates import scaler_of
from jaxtune.run.plan import Plan, make_plan, trains_statistics
from jaxtune.run.sentence_models import pooling_of, with_folder
from jaxtune.run.setup import Goal, Held, Run, RunData, Tuned
from jaxtune.run.teacher import Teacher, lessons_of, open_teacher, with_examples
from jaxtune.settings import Settings
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import to_dict
from jaxtune.tasks.registry import find_task
from jaxtune.tasks.task import Task, drawn_together, keeping, minimising
from jaxtune.tuning import injection, partition
from jaxtune.tuning.depth import frozen_layers
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.partition import Strategy
from jaxtune.tuning.registry import make_strategy

# No step number reaches these, so no step shares its key with a new head or an added parameter.
_HEAD_STREAM, _ADDED_STREAM = 2**31, 2**31 + 1


class _Read(NamedTuple):
    """The data as examples; its rows, which may take far more memory, are gone."""

    settings: DataSettings
    examples: dict[str, Any]
    processor: Any
    notes: list[str]
    outputs: Outputs
    held: Held
    places: Any
    teacher: Teacher | None


def prepare(
    settings: Settings,
    report: Report,
    token_cache_dir: Path | None = None,
    tables: Mapping[str, Table] | None = None,
    target: Target | None = None,
) -> Run:
    """Reads and checks the data, loads the model, and plans the steps.

    Args:
      settings: validated.
      report: shows progress.
      token_cache_dir: a folder that keeps tokens from run to run; None keeps none.
      tables: rows by split, in the place of those that the settings name.
      target: devices that need not be here, for which the run is only planned: its parameters are
        `jax.ShapeDtypeStruct`s. None for those of this process.

    Raises:
      UserError: whatever is wrong with the config, the data or the weights, in that order.
    """
    devices = jax.devices() if target is None else target.devices
    check_devices(settings.parallel, settings.train.batch_size, len(devices))
    task, own_loss = _find_task(settings, token_cache_dir)
    scaler = scaler_of(settings.optimizer)
    metric_of(task, settings.train.best_metric)  # or it is none
    settings, source, strategy = _open_model(settings, task)
    teacher = open_teacher(settings, task)
    device = this_device() if target is None else target.chip.device
    attention = settings.precision.attention
    check_attention(attention, source.config, device)
    task.data.inputs.check_settings(settings.data, source.config, source.path)
    read = _encode(settings, task, source, tables, report, teacher)
    best_metric = metric_of_data(settings, task, read.examples["validation"])
    dtype = jnp.dtype(settings.precision.compute_dtype)
    train, drawn_notes = task.data.drawn(read.examples["train"], settings.data.splits)
    with told_of_head(settings.model.head):
        design = make_design(source, task.head, read.outputs, dtype, device, attention)
        check_names(design.shapes)
    groups, shapes = drawn_together(task, train), design.shapes
    count = len(train.lengths) if groups is None else len(groups.sizes)
    plan = make_plan(settings, strategy, source.family, shapes, count, devices)
    labels = tuple(partition.freeze(one, design.head.fitted) for one in plan.stage_labels)
    plan = plan._replace(stage_labels=labels)
    check_shared_heads(source.config, plan.sharding)
    sampling = sampling_of(settings, train)
    drawn = {**read.examples, "train": train}
    layout, eval_layout = choose_layouts(settings, task, drawn, design, plan, sampling)
    stream = Stream(train, layout, settings.seed, sampling, groups)
    loss_fn = make_loss(settings, task, own_loss, design, stream)
    trunks = _plan_trunks(settings, design, plan.stage_labels, train, plan)
    lessons = lessons_of(settings, task, read.teacher, design, stream, [t.depth for t in trunks])
    folder = None if target is not None else token_cache_dir
    stream, digest = attend(lessons, settings, task, stream, folder, report, target is None)
    pretrained = _load(settings, design, plan.sharding, with_values=target is None)
    params = _extend(settings, strategy, pretrained.params, plan.sharding)
    stage_labels, notes = with_new_parts(settings, plan.stage_labels, params, pretrained)
    return Run(
        settings=_resolve(settings, read.settings, source.path, pretrained.sha256, digest),
        task=task,
        pretrained=pretrained._replace(params=None),
        params=_cast_frozen(params, stage_labels, settings.precision.frozen_dtype),
        data=RunData(
            examples=read.examples,
            stream=stream,
            eval_layout=eval_layout,
            processor=read.processor,
            notes=(*read.notes, *drawn_notes, *notes),
            held=read.held,
            places=read.places,
        ),
        tuning=Tuned(
            strategy=strategy,
            apply_fn=injection.adapt(strategy, pretrained.apply_fn),
            stage_labels=stage_labels,
            trunks=_plan_trunks(settings, pretrained.design, stage_labels, train, plan),
            multipliers=plan.multipliers,
            observed=() if lessons is None else lessons.states.student,
        ),
        goal=Goal(
            loss_fn,
            scaler,
            plan.schedule,
            plan.steps_per_epoch,
            plan.num_steps,
            best_metric,
        ),
        sharding=plan.sharding,
    )


def _find_task(settings: Settings, token_cache_dir: Path | None) -> tuple[Task, LossFn | None]:
    """The task, and the loss that takes the place of its own.

    Scores and hooks of a person's own are found here too, to be refused before anything is read.
    """
    task = minimising(find_task(settings.task), settings.loss)
    task = scored(keeping(task, token_cache_dir), settings.train.scores)
    hooks_of(settings.train.hooks)
    return task, loss_of(settings, task)


def _open_model(settings: Settings, task: Task) -> tuple[Settings, Source, Strategy]:
    """The model with the head that the settings say, and the strategy on its parameters' names.

    The settings say too what a folder of embeddings does, where they said nothing.
    """
    source = read_source(settings.model.path, settings.model.revision)
    check_base(settings.model, source.path)
    source = keep_layers(source, settings.model.layers)
    if task.head in POOLING_HEADS:
        settings = with_folder(settings, source.path, prompts=task.head == EMBEDDING)
        own = with_pooling(source.family, pooling_of(settings.model))
        source = source._replace(family=own)
    head = find_head(source.family, task.head)
    if settings.model.head is not None:
        family = with_own_head(source.family, task.head, head_of(settings.model.head))
        source, head = source._replace(family=family), family.heads[task.head]
    config = with_statistics(source.config, trains_statistics(settings))
    strategy = make_strategy(
        settings.tuning.name,
        _strategy_fields(settings),
        family_fields(source.family, head, config, settings.tuning.added.placement),
    )
    if source.layers is not None and isinstance(strategy, injection.Adapter):
        raise UserError(
            f"config.model.layers leaves layers out, but {settings.tuning.name!r} adds parameters"
            " to the folder's model as it is: expected () with it. Make the smaller model first,"
            " by a run with another strategy."
        )
    return settings, source._replace(config=config), strategy


def _strategy_fields(settings: Settings) -> dict[str, Any]:
    fields = to_dict(settings.tuning)
    del fields["name"], fields["batch_statistics"], fields["frozen_dropout"]
    return fields


def _encode(
    settings: Settings,
    task: Task,
    source: Source,
    tables: Mapping[str, Table] | None,
    report: Report,
    teacher: Teacher | None,
) -> _Read:
    """Reads the data and makes examples of it with the model's tokenizer or image processor."""
    processor = task.data.inputs.load(source.path, source.config)
    data = read_data(settings.data, task.data.reader, tables)
    found = task.data.resolve(settings.data, data.splits["train"])
    found = dataclasses.replace(found, source=dataclasses.replace(found.source, sha256=data.sha256))
    num_outputs = task.output.num_outputs(data)
    outputs = choose_outputs(task.head, source.hf_config, data.class_names or None, num_outputs)

    def check(examples: Any) -> None:
        task.data.inputs.check(examples, source.config, source.path)

    examples, cuts = encode_splits(
        task, data, processor, settings.data, outputs.class_names, check, report
    )
    places = data.splits["train"].places
    if places is not None and len(places) != len(examples["train"].lengths):
        places = None  # an example is a part of a row
    held = held_of(data, examples)
    if teacher is not None:
        track = report.track("reading train for the teacher")
        teacher = with_examples(teacher, task, processor, data.splits["train"], settings, track)
    return _Read(found, examples, processor, [*data.notes, *cuts], outputs, held, places, teacher)


def _load(
    settings: Settings, design: Design, sharding: Sharding | None, with_values: bool
) -> Pretrained:
    """The weights, each where it belongs; a new head is drawn from the run's seed."""
    from_scratch = settings.model.from_scratch
    if with_values:
        pretrained = load_weights(
            design,
            key=jax.random.fold_in(jax.random.key(settings.seed), _HEAD_STREAM),
            sha256=settings.model.sha256,
            from_scratch=from_scratch,
            put=partial(put, sharding),
        )
    else:
        pretrained = outline_weights(design, from_scratch=from_scratch)
    if settings.train.gradient_checkpointing:
        return pretrained._replace(apply_fn=make_recomputing_apply(pretrained.module))
    return pretrained


def _extend(
    settings: Settings, strategy: Strategy, params: Params, sharding: Sharding | None
) -> Params:
    """The parameters with those that the strategy adds, where they belong."""
    key = jax.random.fold_in(jax.random.key(settings.seed), _ADDED_STREAM)
    if trees.is_outline(params):
        return jax.eval_shape(partial(injection.extend, strategy), params, key)
    params = injection.extend(strategy, params, key)
    return params if sharding is None else place(params, sharding.shardings(params))


def _resolve(
    settings: Settings, data: DataSettings, folder: Path, sha256: str, teacher: str | None
) -> Settings:
    """The settings with what was found out: digests, and what follows from the data."""
    model = dataclasses.replace(settings.model, sha256=sha256, **base_digests(folder))
    distillation = dataclasses.replace(settings.distillation, teacher_sha256=teacher)
    return dataclasses.replace(settings, model=model, data=data, distillation=distillation)


def _plan_trunks(
    settings: Settings, design: Design, stage_labels: tuple[Any, ...], train: Any, plan: Plan
) -> tuple[TrunkPlan, ...]:
    """What each stage does with the frozen layers below all that it trains."""
    names, count = design.source.family.names, num_layers(design.module)
    return tuple(
        plan_trunk(
            frozen_layers(labels, names.layers, names.below, count),
            frozen_dropout=settings.tuning.frozen_dropout,
            gradient_checkpointing=settings.train.gradient_checkpointing,
            is_random=train.is_random,
            enabled=settings.activation_cache.enabled,
            several_epochs=plan.num_steps > plan.steps_per_epoch,
        )
        for labels in stage_labels
    )


def _cast_frozen(params: Params, stage_labels: tuple[Any, ...], dtype: str) -> Params:
    """The frozen leaves in their own dtype; what is trained stays float32."""
    if dtype == "float32":
        return params

    def cast(params: Params) -> Params:
        return jax.tree.map(
            lambda leaf, label: leaf.astype(dtype) if label == partition.FROZEN else leaf,
            params,
            stage_labels[0],
        )

    return jax.eval_shape(cast, params) if trees.is_outline(params) else cast(params)
