"""Floating-point operations of a training step, counted without compiling or running it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from jaxtune.core.counting import counting
from jaxtune.core.types import ApplyFn, Batch, LossFn, Params
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
    of attention all scores are counted, also where a long row is attended to block by block. Logits
    over a vocabulary are counted for the tokens of whole chunks, as many as the batch's scored ones
    fill.

    Args:
      apply_fn: the model.
      loss_fn: sum of losses and of weights.
      tx: an optimizer over the trainable leaves.
      params: all parameters, arrays or `jax.ShapeDtypeStruct`.
      labels: a tree of str like `params`.
      batch: one batch, or its shapes; then all of its tokens are taken to be scored.

    Returns:
      None where they cannot be counted.
    """
    share = _share_scored(batch)
    params, batch = jax.eval_shape(lambda *trees: trees, params, batch)
    trainable, frozen = partition.partition(params, labels)
    state = jax.eval_shape(lambda p: init_state(p, tx, jax.random.key(0)), trainable)
    step = make_train_step(apply_fn, loss_fn, tx)
    # JAX counts the uncompiled program on the CPU alone; the products are the same elsewhere.
    with _on_cpu(), counting(share):
        try:
            costs = jax.jit(step).lower(state, frozen, batch).cost_analysis()
        except NotImplementedError:  # an operation that has no CPU version
            return None
    return costs.get("flops") if isinstance(costs, Mapping) else None


def _share_scored(batch: Batch) -> float:
    """Of the rows of a batch, or of its tokens, those that have a weight; 1 if none is known."""
    weight = batch.get("weight")
    if weight is None or isinstance(weight, jax.ShapeDtypeStruct):
        return 1.0
    return float(np.mean(np.asarray(weight) != 0))


def _on_cpu() -> Any:
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:  # JAX was told to use no CPU
        return contextlib.nullcontext()
