"""The shapes of a stage's largest batch, with what its trunk gives where it has one."""

import jax
import numpy as np

from jaxtune.core.types import Params
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.stream import Stream
from jaxtune.frozen.plan import TrunkPlan
from jaxtune.models.model import Model
from jaxtune.models.trunk import STATES, make_trunk, reads_all


def outline_batch(
    stream: Stream, plan: TrunkPlan, module: Model, frozen: Params, dtype: str
) -> dict[str, jax.ShapeDtypeStruct]:
    """What `Loader` gives a step, as shapes; nothing is computed.

    Args:
      stream: the examples and their order.
      plan: what the stage does with its frozen layers.
      module: the model.
      frozen: what the stage does not train, arrays or shapes.
      dtype: that kept activations have.
    """
    fields = stream.empty()
    if not plan.depth:
        return jax.eval_shape(lambda batch: batch, fields)
    states = jax.eval_shape(make_trunk(module, plan.depth), frozen, fields)
    if not reads_all(module, plan.depth):  # one state of an example, in a row of its own
        count = stream.layout.num_rows(BatchIndex(np.arange(0), 1))
        fields = stream.examples.collate_labels(np.arange(0), count)
        states = jax.ShapeDtypeStruct((count, 1, *states.shape[2:]), states.dtype)
    kept = jax.ShapeDtypeStruct(states.shape, dtype if plan.keeps else states.dtype)
    return jax.eval_shape(lambda batch: batch, fields) | {STATES: kept}
