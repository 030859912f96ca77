"""What follows from the settings and the shapes of the parameters, before any weight is read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.models.family import Family
from jaxtune.parallel.sharding import Sharding, make_sharding
from jaxtune.run.own_updates import schedule_of
from jaxtune.settings import OptimizerSettings, Settings, TrainSettings
from jaxtune.tuning import injection, partition
from jaxtune.tuning.partition import Staged, Strategy
from jaxtune.tuning.rates import rate_multipliers


class Plan(NamedTuple):
    """The steps of a run.

    Attributes:
      stage_labels: the labels of each stage of the strategy.
      multipliers: a factor on the learning rate of each leaf.
      schedule: learning rate by step.
      steps_per_epoch: batches in one pass.
      num_steps: in all.
      sharding: of the parameters on several devices; None on one.
    """

    stage_labels: tuple[Any, ...]
    multipliers: Any
    schedule: optax.Schedule
    steps_per_epoch: int
    num_steps: int
    sharding: Sharding | None


def make_plan(
    settings: Settings,
    strategy: Strategy,
    family: Family,
    shapes: Params,
    num_examples: int,
    devices: Sequence[Any] | None = None,
) -> Plan:
    """Plans the steps.

    Args:
      settings: of the run.
      strategy: what is trained.
      family: names the layers and the running statistics.
      shapes: of the model's parameters, `jax.ShapeDtypeStruct`.
      num_examples: of training.
      devices: that share the work; None for all that JAX has.

    Raises:
      UserError: a strategy, stages, a profile or devices that do not fit the model or the run.
    """
    key = jax.random.key(0)
    extended = jax.eval_shape(lambda p, k: injection.extend(strategy, p, k), shapes, key)
    stage_labels = tuple(
        partition.set_statistics(
            labels, family.names.statistics, trained=trains_statistics(settings)
        )
        for labels in partition.stages(strategy, extended)
    )
    steps_per_epoch = -(-num_examples // settings.train.batch_size)
    num_steps = settings.train.num_steps or settings.train.num_epochs * steps_per_epoch
    _check_stages(settings, strategy, len(stage_labels), num_steps, steps_per_epoch)
    _check_profile(settings.profile.steps, num_steps)
    o = settings.optimizer
    return Plan(
        stage_labels=stage_labels,
        multipliers=rate_multipliers(
            extended,
            o.layer_decay,
            o.rate_multipliers,
            layers=family.names.layers,
            below=family.names.below,
        ),
        schedule=schedule_of(o, num_steps),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        sharding=make_sharding(settings.parallel, family.sharding_rules, extended, devices),
    )


def steps_between_evaluations(train: TrainSettings, steps_per_epoch: int) -> int:
    """As the settings say, else those of an epoch."""
    return train.eval_every_steps or steps_per_epoch


def check_length(
    optimizer: OptimizerSettings, taken: int, before: int, now: int, schedule: optax.Schedule
) -> None:
    """Refuses another length for a run whose steps so far would then have been others.

    Args:
      optimizer: whose rate may depend on the length.
      taken: steps so far.
      before: steps in all, as the run was begun.
      now: steps in all, as it is to go on.
      schedule: of the run as it is to go on.

    Raises:
      UserError: fewer steps than were taken, or other rates at them.
    """
    lengths = f"{before} steps, it is now to have {now}, and {taken} were taken"
    if now < taken:
        raise UserError(f"the run in this workdir had {lengths}: expected at least {taken}.")
    steps = np.arange(taken)
    old, new = (jax.vmap(of)(steps) for of in (schedule_of(optimizer, before), schedule))
    if before != now and not np.array_equal(old, new):
        raise UserError(
            f"the run in this workdir had {lengths}: their learning rates follow from the length by"
            f" optimizer.schedule {optimizer.schedule} and optimizer.warmup_fraction"
            f" {optimizer.warmup_fraction:g}. Only a constant rate goes on as it began; set"
            " num_epochs and num_steps as they were, or use another --workdir."
        )


def trains_statistics(settings: Settings) -> bool:
    """As the settings say; else with `full`, which leaves nothing frozen that relies on them."""
    chosen = settings.tuning.batch_statistics
    return settings.tuning.name == "full" if chosen is None else chosen == "trained"


def stage_start(strategy: Staged, stage: int, steps_per_epoch: int) -> int | None:
    """The step at which a stage begins; None where that depends on the validation score."""
    if strategy.stage_by == "plateau":
        return None
    unit = steps_per_epoch if strategy.stage_by == "epoch" else 1
    return round(stage * strategy.stage_length * unit)


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
