"""Floating-point operations of a training step, counted without compiling or running it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import optax

from jaxtune.core.types import ApplyFn, Batch, LossFn, Params
from jaxtune.models.attention_path import all_at_once
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import partition


def step_flops(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    params: Params,
    labels: Any,
    batch: Batch,
) -> float | None:
    """Counts the operations of one training step on abstract values.

    The count is of the program before XLA's own simplifications, within 1% of that of the compiled
    program for a BERT. The body of a loop (`jax.lax.scan`) is counted once, however often it runs;
    of attention all scores are counted, also where a long row is attended to block by block.

    Args:
      apply_fn: the model.
      loss_fn: sum of losses and of weights.
      tx: an optimizer over the trainable leaves.
      params: all parameters, arrays or `jax.ShapeDtypeStruct`.
      labels: a tree of str like `params`.
      batch: one batch, or its shapes.

    Returns:
      None where they cannot be counted.
    """
    params, batch = jax.eval_shape(lambda *trees: trees, params, batch)
    trainable, frozen = partition.partition(params, labels)
    state = jax.eval_shape(lambda p: init_state(p, tx, jax.random.key(0)), trainable)
    step = make_train_step(apply_fn, loss_fn, tx)
    # JAX counts the uncompiled program on the CPU alone; the products are the same elsewhere.
    with _on_cpu(), all_at_once():
        try:
            costs = jax.jit(step).lower(state, frozen, batch).cost_analysis()
        except NotImplementedError:  # an operation that has no CPU version
            return None
    return costs.get("flops") if isinstance(costs, Mapping) else None


def _on_cpu() -> Any:
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:  # JAX was told to use no CPU
        return contextlib.nullcontext()
