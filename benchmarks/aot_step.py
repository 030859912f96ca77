"""Part of benchmarks/aot.py: a run of which nothing has values, and the step of its first stage."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from aot_batch import batch_shapes, placed, tell
from scale_of_run import leaves_of, planned, work_of
from scale_plan import plan

from jaxtune.analysis.targets import Target, find_target, tracing_for
from jaxtune.frozen.plan import TrunkPlan
from jaxtune.models import registry
from jaxtune.models.design import Outputs, make_design
from jaxtune.models.family import with_statistics
from jaxtune.models.pretrained import outline_weights
from jaxtune.models.recompute import make_recomputing_apply
from jaxtune.models.source import Source
from jaxtune.run import stages
from jaxtune.run.own_updates import scaler_of
from jaxtune.run.plan import make_plan, trains_statistics
from jaxtune.run.setup import Goal, Run, Tuned
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict
from jaxtune.tasks.registry import find_task
from jaxtune.tuning import injection
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.registry import make_strategy

EXAMPLES = 100_000  # of training, from which the schedule follows


def main(job: dict[str, Any]) -> None:
    """Compiles the step of a job."""
    target = find_target(job["target"])
    run = make_run(settings_of(job), job["fields"], target)
    step, state, frozen = stages.outline(run, 0, target.devices[0])
    empty = run.pretrained.module.example_batch()
    pixels = empty.get("pixel_values")
    shapes = batch_shapes(job, None if pixels is None else pixels.shape[1:])
    batch = {k: jax.ShapeDtypeStruct(*shape) for k, shape in shapes.items()}
    place = jax.sharding.SingleDeviceSharding(target.devices[0])
    rows = place if run.sharding is None else run.sharding.rows
    batch = placed(batch, jax.tree.map(lambda _: rows, batch))
    also = {}
    if run.sharding is not None and "input_ids" in batch:
        sizes = dict(run.sharding.mesh.shape)
        also["planned"] = planned(plan(leaves_of(run, 0), sizes, work_of(run, batch)))
    tell(step.jitted, (state, frozen, batch), job, also, lambda: tracing_for(target))


def settings_of(job: dict[str, Any]) -> Settings:
    """Those of a run of a job."""
    found: Settings = Settings()
    for name, value in ({"task": job["task"]} | job["settings"]).items():
        found = _replaced(found, name.split("."), value)
    return found


def _replaced(node: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    inner = _replaced(getattr(node, name), rest, value) if rest else value
    return dataclasses.replace(node, **{name: inner})


def make_run(settings: Settings, fields: dict[str, Any], target: Target) -> Run:
    """As `prepare` does, without data, and with all layers in the step."""
    task = find_task(settings.task)
    family = registry.find_family(fields, "fields")
    config = with_statistics(family.config_from_hf(fields, "fields"), trains_statistics(settings))
    source = Source(Path("."), family, config, fields)
    dtype = jnp.dtype(settings.precision.compute_dtype)
    outputs = Outputs(2, ("a", "b") if task.head in registry.CLASS_HEADS else ())
    design = make_design(
        *(source, task.head, outputs, dtype, target.chip.device, settings.precision.attention)
    )
    own = to_dict(settings.tuning)
    name = own.pop("name")
    own = {k: v for k, v in own.items() if k not in ("batch_statistics", "frozen_dropout")}
    placement = settings.tuning.added.placement
    known = family_fields(family, registry.find_head(family, task.head), config, placement)
    strategy = make_strategy(name, own, known)
    plan = make_plan(settings, strategy, family, design.shapes, EXAMPLES, target.devices)
    model = outline_weights(design, from_scratch=True)
    if settings.train.gradient_checkpointing:
        model = model._replace(apply_fn=make_recomputing_apply(model.module))
    key = jax.random.key(0)
    params = jax.eval_shape(lambda p, k: injection.extend(strategy, p, k), design.shapes, key)
    return Run(
        settings=settings,
        task=task,
        pretrained=model._replace(params=None),
        params=params,
        data=None,  # pyright: ignore[reportArgumentType]
        tuning=Tuned(
            strategy=strategy,
            apply_fn=injection.adapt(strategy, model.apply_fn),
            stage_labels=plan.stage_labels,
            trunks=(TrunkPlan(0),) * len(plan.stage_labels),
            multipliers=plan.multipliers,
        ),
        goal=Goal(
            task.loss.make(settings.loss, design.outputs.class_names, np.arange(2)),
            scaler_of(settings.optimizer),
            *(plan.schedule, plan.steps_per_epoch, plan.num_steps, task.scores.best),
        ),
        sharding=plan.sharding,
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
