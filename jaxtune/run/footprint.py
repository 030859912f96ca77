"""What a training step needs of devices that need not be here, from its compiled program."""

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.analysis.hlo import parse
from jaxtune.analysis.kernels import Launched, launched
from jaxtune.analysis.roofline import Roofline, roofline
from jaxtune.analysis.targets import Target, tracing_for
from jaxtune.core import trees
from jaxtune.frozen.outline import outline_batch
from jaxtune.run import stages
from jaxtune.run.setup import Run
from jaxtune.training.program_cache import keeping_none
from jaxtune.tuning import partition

Batch = Mapping[str, jax.ShapeDtypeStruct]

SPARE = 0.1
"""Share of a device's memory that is left to the runtime and to what lies between programs."""


class Footprint(NamedTuple):
    """Of one device in a step.

    Attributes:
      parameter_bytes: trained and frozen.
      moment_bytes: what else the train state has.
      batch_bytes: its part of the batch.
      temporary_bytes: activations, gradients and what else the step computes with.
      total_bytes: all of them, and what the program takes itself.
      launched: what the program does.
      roofline: the time of it by that.
      compile_seconds: tracing among them.
    """

    parameter_bytes: int
    moment_bytes: int
    batch_bytes: int
    temporary_bytes: int
    total_bytes: int
    launched: Launched
    roofline: Roofline
    compile_seconds: float


def widest_stage(run: Run) -> int:
    """The stage that trains most numbers, of which it needs moments and gradients."""

    def trained(index: int) -> int:
        return trees.count(partition.partition(run.params, run.tuning.stage_labels[index])[0])

    return max(range(len(run.tuning.stage_labels)), key=trained)


def largest_batch(run: Run, index: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the largest batch of a stage."""
    _, frozen = partition.partition(run.params, run.tuning.stage_labels[index])
    module, dtype = run.pretrained.module, run.settings.activation_cache.dtype
    return outline_batch(run.data.stream, run.tuning.trunks[index], module, frozen, dtype)


def with_rows(batch: Batch, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch with another number of rows."""
    return {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for name, x in batch.items()}


def num_rows(batch: Batch) -> int:
    """Rows of a batch."""
    return next(iter(batch.values())).shape[0]


def measure(run: Run, index: int, batch: Batch, target: Target) -> Footprint | None:
    """Compiles the step of a stage and looks at it.

    Args:
      run: as planned for the target; see `prepare`.
      index: of the stage.
      batch: shapes, of all devices together.
      target: that the program is for.

    Returns:
      None where the compiler itself finds that the step needs more memory than there is.
    """
    step, state, frozen = stages.outline(run, index, target.devices[0])
    placed = _on(run, batch, target)
    start = time.perf_counter()
    try:
        with tracing_for(target), keeping_none():
            program = step.program(state, frozen, placed)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise
    seconds = time.perf_counter() - start
    memory, found = program.memory_analysis(), launched(parse(program.as_text()))
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    total += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Footprint(
        parameter_bytes=held_bytes(state.params) + held_bytes(frozen),
        moment_bytes=held_bytes(state._replace(params=None)),
        batch_bytes=held_bytes(placed),
        temporary_bytes=memory.temp_size_in_bytes,
        total_bytes=total + memory.generated_code_size_in_bytes,
        launched=found,
        roofline=roofline(found, target.chip),
        compile_seconds=seconds,
    )


def fits(found: Footprint | None, target: Target) -> bool:
    """Whether a step can run on the devices."""
    return found is not None and found.total_bytes <= (1 - SPARE) * target.chip.memory


def _on(run: Run, batch: Batch, target: Target) -> dict[str, jax.ShapeDtypeStruct]:
    place = jax.sharding.SingleDeviceSharding(target.devices[0])
    rows = place if run.sharding is None else run.sharding.rows
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows) for name, x in batch.items()
    }


def held_bytes(tree: Any) -> int:
    """What one device holds of a tree of shapes that know their places."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * _itemsize(leaf.dtype)
        for leaf in jax.tree.leaves(tree)
    )


def _itemsize(dtype: Any) -> int:
    is_key = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return 8 if is_key else np.dtype(dtype).itemsize
