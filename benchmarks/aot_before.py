"""Part of benchmarks/aot.py: the step of commits before a program's device was a value.

There what is chosen for a device is asked of JAX while tracing, so JAX is made to say what is not
so; one device alone, and strategies that add no parameters.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from aot_batch import batch_shapes, placed, tell
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding


def main(job: dict[str, Any]) -> None:
    """Compiles the step of a job."""
    from jaxtune.state import init_state
    from jaxtune.step import make_sums, make_update

    from jaxtune import noise, optim
    from jaxtune.models import registry
    from jaxtune.models.family import strategy_fields
    from jaxtune.settings import LossSettings
    from jaxtune.tasks.registry import find_task
    from jaxtune.tuning import partition
    from jaxtune.tuning.registry import make_strategy

    device = topologies.get_topology_desc(**job["topology"]).devices[0]
    task, fields = find_task(job["task"]), job["fields"]
    family = registry.find_family(fields, "fields")
    config, head = family.config_from_hf(fields, "fields"), family.heads[task.head]
    dtype = jnp.dtype(job["settings"]["precision.compute_dtype"])
    jax.default_backend, jax.devices = lambda: job["platform"], lambda *_: [device]
    module = head.make_module(config, 2, dtype)
    params = registry.parameter_shapes(module)
    name = job["settings"]["tuning.name"]
    known = strategy_fields(family, head, params, None)
    labels = partition.label(make_strategy(name, {}, known), params)
    schedule = optim.make_schedule("linear", 5e-5, 1000, 100)
    tx = optim.make_optimizer("adamw", schedule, partition.trainable_labels(labels))
    trainable, frozen = partition.partition(params, labels)
    state = jax.eval_shape(lambda p: init_state(p, tx, jax.random.key(0)), trainable)
    loss = task.make_loss(LossSettings(), ("a", "b"), np.arange(2))
    sums = make_sums(registry.make_apply(module), loss, 1, noise.same_key)
    pixels = getattr(module, "example_batch", dict)().get("pixel_values")
    shapes = batch_shapes(job, None if pixels is None else pixels.shape[1:])
    args = state, frozen, {k: jax.ShapeDtypeStruct(*shape) for k, shape in shapes.items()}
    place = jax.tree.map(lambda _: SingleDeviceSharding(device), args)
    tell(
        jax.jit(make_update(sums, tx), donate_argnums=0), placed(args, place), job | {"threads": 1}
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
