"""From settings to everything that a run needs and does not change."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtune.core import paths
from jaxtune.core.errors import UserError, nearest
from jaxtune.core.types import ApplyFn, LossFn, Params
from jaxtune.data.batching import batches
from jaxtune.data.batching.layout import Layout, choose_layout
from jaxtune.data.sources.rows import read_data
from jaxtune.frozen.plan import TrunkPlan, plan_trunk
from jaxtune.models.family import Family, check_shared_heads, with_statistics
from jaxtune.models.pretrained import Pretrained, choose_classes, load_pretrained, read_config
from jaxtune.models.recompute import make_recomputing_apply
from jaxtune.models.registry import find_head, parameter_shapes
from jaxtune.parallel import sharding
from jaxtune.parallel.sharding import Placement
from jaxtune.run.console import Report
from jaxtune.run.encoding import encode_splits
from jaxtune.settings import Settings
from jaxtune.tasks.registry import find_task
from jaxtune.tasks.task import Task, keeping_tokens
from jaxtune.train import optimizers
from jaxtune.tuning import injection, partition
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.partition import Staged, Strategy
from jaxtune.tuning.rates import rate_multipliers
from jaxtune.tuning.registry import make_strategy


class Run(NamedTuple):
    """A run before its first step.

    Attributes:
      settings: resolved, with the digests of weights and data.
      task: loss, metrics, decoding.
      pretrained: the model as loaded, but for its parameters.
      processor: the tokenizer or image processor, from the model's folder.
      examples: by split.
      layout: of training batches.
      eval_layout: of batches of evaluation.
      placement: of parameters and batches on several devices; None on one.
      strategy: what is trained.
      loss_fn: what is minimised.
      apply_fn: the model on `params`.
      params: all parameters at step 0, with those that the strategy adds.
      stages: the labels of each stage of the strategy; most have one.
      trunks: the frozen layers of each stage.
      multipliers: factor on the learning rate of each leaf.
      schedule: learning rate by step.
      steps_per_epoch: batches in one pass.
      num_steps: in all.
      best_metric: the score that chooses the best checkpoint.
      notes: what a person should know about the data.
    """

    settings: Settings
    task: Task
    pretrained: Pretrained
    processor: Any
    examples: dict[str, Any]
    layout: Layout
    eval_layout: Layout
    placement: Placement | None
    strategy: Strategy
    loss_fn: LossFn
    apply_fn: ApplyFn
    params: Params
    stages: tuple[Any, ...]
    trunks: tuple[TrunkPlan, ...]
    multipliers: Any
    schedule: optax.Schedule
    steps_per_epoch: int
    num_steps: int
    best_metric: str
    notes: list[str]

    def optimizer(self, stage: int) -> optax.GradientTransformation:
        """The optimizer of the leaves that are trained in a stage."""
        return make_tx(self.settings, self.stages[stage], self.multipliers, self.schedule)


def prepare(settings: Settings, report: Report, tokens: Path | None = None) -> Run:
    """Reads and checks the data, loads the model, and plans the steps.

    Args:
      settings: validated.
      report: shows progress.
      tokens: a folder that keeps tokens from run to run; None keeps none.

    Raises:
      UserError: whatever is wrong with the config, the data or the weights, in that order.
    """
    sharding.check_devices(settings.parallel, settings.train.batch_size, jax.device_count())
    task = keeping_tokens(find_task(settings.task), tokens)
    best_metric = _check_metric(task, settings.train.best_metric)
    folder, family, config, hf_config = read_config(settings.model.path, settings.model.revision)
    head = find_head(family, task.head)
    statistics = _trains_statistics(settings)
    config = with_statistics(config, statistics)
    dtype = jnp.dtype(settings.precision.compute_dtype)
    strategy = make_strategy(
        settings.tuning.name,
        _strategy_fields(settings),
        family_fields(family, head, config, settings.tuning.placement),
    )
    task.inputs.check_settings(settings.data, config, folder)
    data = read_data(settings.data, task.reader)
    num_outputs = task.num_outputs(data)
    processor = task.inputs.load(folder, config)
    key = jax.random.key(settings.seed)
    class_names, _ = choose_classes(task.head, hf_config, data.class_names or None, num_outputs)
    examples, cuts = encode_splits(
        task, data, processor, settings.data, class_names, config, folder, report
    )
    outputs = num_outputs or len(class_names) or 1
    shapes = parameter_shapes(family.make_module(task.head, config, outputs, dtype))
    plan = _plan(settings, strategy, family, shapes, len(examples["train"].lengths))
    placement = plan.placement
    check_shared_heads(config, placement)
    pretrained = load_pretrained(
        folder,
        head=task.head,
        class_names=data.class_names or None,
        num_outputs=num_outputs,
        key=jax.random.fold_in(key, _HEAD_STREAM),
        compute_dtype=dtype,
        sha256=settings.model.sha256,
        from_scratch=settings.model.from_scratch,
        train_statistics=statistics,
        put=partial(sharding.put, placement),
    )
    max_length = getattr(config, "max_length", 1)
    if settings.train.gradient_checkpointing:
        pretrained = pretrained._replace(apply_fn=make_recomputing_apply(pretrained.module))
    params = injection.extend(strategy, pretrained.params, jax.random.fold_in(key, _ADDED_STREAM))
    if placement is not None:
        params = sharding.place(params, placement.shardings(params))
    stages, notes = _with_new_parts(settings, plan.stages, params, pretrained)
    resolved = dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, sha256=pretrained.sha256),
        data=dataclasses.replace(
            task.resolve(settings.data, data.splits["train"]), sha256=data.sha256
        ),
    )
    return Run(
        resolved,
        task,
        pretrained._replace(params={}),
        processor,
        examples,
        *_choose_layouts(settings, task, examples, max_length, placement),
        placement,
        strategy,
        task.make_loss(settings.loss, pretrained.class_names, examples["train"].labels),
        injection.adapt(strategy, pretrained.apply_fn),
        _cast_frozen(params, stages, settings.precision.frozen_dtype),
        stages,
        tuple(
            plan_trunk(
                settings, family, labels, examples["train"], plan.num_steps > plan.steps_per_epoch
            )
            for labels in stages
        ),
        plan.multipliers,
        plan.schedule,
        plan.steps_per_epoch,
        plan.num_steps,
        best_metric,
        [*data.notes, *cuts, *notes],
    )


def make_tx(
    settings: Settings, labels: Any, multipliers: Any, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The settings' optimizer for the leaves that are trained, with any schedule.

    Args:
      settings: its `optimizer` section is read.
      labels: one label for each leaf, FROZEN or a group.
      multipliers: a factor on the learning rate for each leaf.
      schedule: learning rate by step.
    """
    wanted = ("weight_decay", "clip_norm", "b1", "b2", "eps", "momentum")
    fields = {name: getattr(settings.optimizer, name) for name in wanted}
    factors, _ = partition.partition(multipliers, labels)
    return optimizers.make_optimizer(
        settings.optimizer.name,
        schedule,
        partition.trainable_labels(labels),
        multipliers=factors,
        **fields,
    )


def stage_start(strategy: Staged, stage: int, steps_per_epoch: int) -> int | None:
    """The step at which a stage begins; None where that depends on the validation score."""
    if strategy.stage_by == "plateau":
        return None
    unit = steps_per_epoch if strategy.stage_by == "epoch" else 1
    return round(stage * strategy.stage_length * unit)


def batch_indices(run: Run, step: int = 0) -> Iterator[tuple[batches.BatchIndex, int]]:
    """The examples of each training batch from `step` on and where they lie, and the epoch.

    A function of the seed and the step alone.
    """
    lengths = run.examples["train"].lengths
    epoch, position = divmod(step, run.steps_per_epoch)
    while True:
        for indices in run.layout.order(lengths, run.settings.seed, epoch)[position:]:
            yield run.layout.place(indices, lengths), epoch
        epoch, position = epoch + 1, 0


def training_batches(
    run: Run, step: int = 0
) -> Iterator[tuple[batches.BatchIndex, dict[str, np.ndarray]]]:
    """The batches from `step` on, for the whole model."""
    for index, epoch in batch_indices(run, step):
        draw = (run.settings.seed, epoch)
        yield index, run.layout.collate(run.examples["train"], index, draw)


# No step number reaches these, so no step shares its key with a new head or an added parameter.
_HEAD_STREAM, _ADDED_STREAM = 2**31, 2**31 + 1


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
    del fields["name"], fields["batch_statistics"], fields["frozen_dropout"]
    return fields


def _trains_statistics(settings: Settings) -> bool:
    """As the settings say; else with `full`, which leaves nothing frozen that relies on them."""
    chosen = settings.tuning.batch_statistics
    return settings.tuning.name == "full" if chosen is None else chosen == "trained"


class _Plan(NamedTuple):
    """What follows from the settings, the parameters' names and the number of training examples."""

    stages: tuple[Any, ...]
    multipliers: Any
    schedule: optax.Schedule
    steps_per_epoch: int
    num_steps: int
    placement: Placement | None


def _plan(
    settings: Settings, strategy: Strategy, family: Family, shapes: Params, num_examples: int
) -> _Plan:
    """Plans the run before any weight is read."""
    key = jax.random.key(0)
    extended = jax.eval_shape(lambda p, k: injection.extend(strategy, p, k), shapes, key)
    stages = tuple(
        partition.set_statistics(
            labels, family.names.statistics, trained=_trains_statistics(settings)
        )
        for labels in partition.stages(strategy, extended)
    )
    steps_per_epoch = -(-num_examples // settings.train.batch_size)
    num_steps = settings.train.num_steps or settings.train.num_epochs * steps_per_epoch
    _check_stages(settings, strategy, len(stages), num_steps, steps_per_epoch)
    _check_profile(settings.profile.steps, num_steps)
    o = settings.optimizer
    multipliers = rate_multipliers(
        extended,
        o.layer_decay,
        o.rate_multipliers,
        layers=family.names.layers,
        below=family.names.below,
    )
    warmup_steps = round(o.warmup_fraction * num_steps)
    schedule = optimizers.make_schedule(o.schedule, o.learning_rate, num_steps, warmup_steps)
    placement = sharding.make_placement(settings.parallel, family.sharding_rules, extended)
    return _Plan(stages, multipliers, schedule, steps_per_epoch, num_steps, placement)


def _choose_layouts(
    settings: Settings,
    task: Task,
    examples: Mapping[str, Any],
    limit: int,
    placement: Placement | None,
) -> tuple[Layout, Layout]:
    """Of training and of evaluation. Images are all of one size, whatever the layout."""
    kind = "bucketed" if task.head == "image" else settings.data.layout
    train, lengths = settings.train, {split: part.lengths for split, part in examples.items()}
    others = [part for split, part in lengths.items() if split != "train"]
    seen = others or [lengths["train"]]
    shares = 1 if placement is None else placement.num_shares
    parts = train.num_microbatches * shares
    return (
        choose_layout(kind, lengths["train"], train.batch_size, limit, multiple=parts),
        choose_layout(kind, seen, train.eval_batch_size, limit, multiple=shares),
    )


def _check_stages(
    settings: Settings, strategy: Strategy, count: int, num_steps: int, steps_per_epoch: int
) -> None:
    """Refuses stages that the run would never reach, and thawed leaves of low precision."""
    if not isinstance(strategy, Staged):
        return
    last = stage_start(strategy, count - 1, steps_per_epoch)
    if last is not None and last >= num_steps:
        raise UserError(
            f"config.tuning: {count} stages of {strategy.stage_length:g} {strategy.stage_by} begin"
            f" their last one at step {last}, but the run has {num_steps} steps. Make stage_length"
            " smaller, layers_per_stage larger, or the run longer."
        )
    if settings.precision.frozen_dtype != "float32":
        raise UserError(
            f"config.precision.frozen_dtype is {settings.precision.frozen_dtype!r}, but"
            f" {settings.tuning.name!r} trains those parameters later: expected 'float32'."
        )


def _check_profile(steps: tuple[int, ...] | None, num_steps: int) -> None:
    if steps is not None and steps[1] > num_steps:
        raise UserError(
            f"config.profile.steps is {steps}, but the run has {num_steps} steps: expected at most"
            f" {num_steps}."
        )


def _with_new_parts(
    settings: Settings, stages: tuple[Any, ...], params: Params, pretrained: Pretrained
) -> tuple[tuple[Any, ...], list[str]]:
    """Trains newly drawn parts that the strategy would leave at random values; says so."""
    ever = jax.tree.map(lambda *names: any(n != partition.FROZEN for n in names), *stages)
    idle = [
        part
        for part in pretrained.report.new
        if not all(
            used for name, used in paths.flatten(ever).items() if name.startswith(f"{part}/")
        )
    ]
    if not idle:
        return stages, []
    names = ", ".join(idle)
    if "rules" in settings.tuning.name.split("+"):
        return stages, [f"{names}: newly initialised, and partly frozen by your rules"]
    thawed = tuple(partition.thaw(labels, idle, "new") for labels in stages)
    return thawed, [f"{names}: newly initialised, so trained too"]


def _cast_frozen(params: Params, stages: tuple[Any, ...], dtype: str) -> Params:
    """The frozen leaves in their own dtype; what is trained stays float32."""
    if dtype == "float32":
        return params
    return jax.tree.map(
        lambda leaf, label: leaf.astype(dtype) if label == partition.FROZEN else leaf,
        params,
        stages[0],
    )
