"""The training step: a pure function, jitted by whoever calls it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Batch, LossFn, Mean, Params, PRNGKey, WithStatistics
from jaxtune.training.state import TrainState


class StepInfo(NamedTuple):
    """What a training step reports and does not keep.

    Attributes:
      loss: sum of the losses and of the weights of the batch, dropout on.
      grad_norm: global norm of the trainable leaves' gradient, before clipping.
    """

    loss: Mean
    grad_norm: Float[Array, ""]


TrainStep = Callable[[TrainState, Params, Batch], tuple[TrainState, StepInfo]]
AnyLossFn = LossFn | Callable[[Any, Batch], Array]
"""The sum of losses and of weights; or the mean over the rows of the batch, as a scalar."""

PartKey = Callable[[PRNGKey, Int[Array, ""]], PRNGKey]


class Sums(NamedTuple):
    """Of a batch or a part of it: the loss, its gradient, and new running statistics."""

    loss: Mean
    grads: Params
    statistics: Params


SumsFn = Callable[[Params, Params, Batch, PRNGKey], Sums]
"""(trainable parameters, frozen ones, batch, key of this batch) -> sums over its rows."""

Apply = Callable[
    [optax.GradientTransformation, Params, optax.OptState, Params], tuple[Params, optax.OptState]
]
"""(optimizer, gradients, its state, parameters) -> new parameters and state, as `apply_whole`."""


def make_train_step(
    apply_fn: ApplyFn,
    loss_fn: AnyLossFn,
    tx: optax.GradientTransformation,
    *,
    num_microbatches: int = 1,
    axis_name: str | None = None,
    part_key: PartKey = jax.random.fold_in,
) -> TrainStep:
    """Makes `train_step(state, frozen, batch) -> (state, info)`.

    The gradient is that of the mean over all weights of the batch, whatever the split into
    microbatches or devices: sums are added first and divided once. It is taken of the trainable
    leaves alone, so the backward pass ends at the lowest of them. The running statistics of a model
    that has any, where they are among the trainable leaves, are the model's own; over microbatches
    and devices, the mean of theirs.

    Args:
      apply_fn: the model.
      loss_fn: sum of losses and of weights, or a scalar, the mean over the rows.
      tx: an optimizer over the trainable tree, as `make_optimizer` builds.
      num_microbatches: the batch is cut into this many equal parts, one after the other, so that
        only one part's activations are alive. Axis b must be a multiple of it.
      axis_name: the device axis under `pmap` or `vmap`; None for one program (jit). Under
        `shard_map` pass it `check_vma=False`, or the gradients are summed over the axis twice.
      part_key: (the batch's key, number of a microbatch or a device) -> the key of that part. By
        default each part draws noise of its own. `dropout.same_key` is for models whose noise
        belongs to the tokens of examples, as that of jaxtune's does: then the noise of a batch is
        the same in one part or in many.

    Returns:
      A pure function. `frozen` is the other half of the parameters and is never changed, so jit
      may donate the state (argument 0) but must not donate `frozen`. It raises a UserError at
      tracing where `num_microbatches` does not divide the batch, or the loss is something else.
    """
    sums = make_sums(apply_fn, loss_fn, num_microbatches, part_key)
    return make_update(sums if axis_name is None else sum_over(sums, axis_name, part_key), tx)


def make_sums(
    apply_fn: ApplyFn,
    loss_fn: AnyLossFn,
    num_microbatches: int = 1,
    part_key: PartKey = jax.random.fold_in,
) -> SumsFn:
    """Makes `sums(params, frozen, batch, key) -> Sums`, the first half of a training step.

    Args:
      apply_fn: the model.
      loss_fn: sum of losses and of weights.
      num_microbatches: as of `make_train_step`.
      part_key: likewise.
    """

    def summed_loss(
        params: Params, frozen: Params, batch: Batch, key: PRNGKey
    ) -> tuple[Array, tuple[Mean, Params]]:
        outputs: Any = apply_fn(trees.merge(params, frozen), batch, key=key, train=True)
        statistics: Params = {}
        if isinstance(outputs, WithStatistics):
            outputs, statistics = outputs
        loss = as_mean(loss_fn(outputs, batch), batch)
        return loss.total, (loss, statistics)

    def sums(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        grad_fn = jax.value_and_grad(summed_loss, has_aux=True)
        (_, (loss, statistics)), grads = grad_fn(params, frozen, batch, key)
        return Sums(loss, grads, statistics)

    if num_microbatches == 1:
        return sums
    return lambda params, frozen, batch, key: _accumulate(
        sums, params, frozen, batch, key, num_microbatches, part_key
    )


def sum_over(sums: SumsFn, axis_name: str, part_key: PartKey = jax.random.fold_in) -> SumsFn:
    """The sums over all parts of a named axis, of which each device has one."""

    def total(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        key = part_key(key, jax.lax.axis_index(axis_name))
        loss, grads, statistics = sums(params, frozen, batch, key)
        loss, grads = jax.lax.psum((loss, grads), axis_name)
        return Sums(loss, grads, jax.lax.pmean(statistics, axis_name))

    return total


def apply_whole(
    tx: optax.GradientTransformation, grads: Params, opt_state: optax.OptState, params: Params
) -> tuple[Params, optax.OptState]:
    """The new parameters and the optimizer's new state, from the gradient of the mean."""
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def make_update(
    sums: SumsFn,
    tx: optax.GradientTransformation,
    apply: Apply = apply_whole,
    norm: Callable[[Params], Array] = optax.tree.norm,
) -> TrainStep:
    """Makes a training step, as `make_train_step` does, from the sums over a batch.

    Args:
      sums: over the whole batch, wherever its parts are.
      tx: an optimizer over the trainable tree.
      apply: what it does with the gradients; `shard_apply` on several devices.
      norm: of the gradient, for `StepInfo`; that of `tx`, or it is computed twice.
    """

    @partial(jax.jit, inline=True)  # traced once for all shapes of a batch
    def update(state: TrainState, sums: Sums) -> tuple[TrainState, StepInfo]:
        loss, grads, statistics = sums
        # A batch of no weight at all (every row is filling) has no gradient, not NaN.
        scale = 1.0 / jnp.maximum(loss.weight, jnp.finfo(jnp.float32).tiny)
        # Of a vector that all leaves read, or a GPU would be sent some kernels for each leaf: XLA
        # puts those into one that read the same array, and does not count numbers among arrays.
        scale = jax.lax.optimization_barrier(jnp.broadcast_to(scale, 2))[0]
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        params, opt_state = apply(tx, grads, state.opt_state, state.params)
        if statistics:
            params = trees.replace(params, statistics)
        info = StepInfo(loss, norm(grads))
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state), info

    def train_step(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, StepInfo]:
        key = jax.random.fold_in(state.key, state.step)
        return update(state, sums(state.params, frozen, batch, key))

    return train_step


def skip_nonfinite(step: TrainStep) -> TrainStep:
    """The step, but where its loss or gradient is NaN or infinite, only the step number changes.

    Parameters and moments stay, and so does the optimizer's own count of updates. The reductions
    are those that the step reports anyway.

    Args:
      step: as `make_train_step` makes it.
    """

    def guarded(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, StepInfo]:
        new, info = step(state, frozen, batch)
        good = jnp.isfinite(info.loss.total) & jnp.isfinite(info.grad_norm)

        def choose(after: Any, before: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(good, x, y), after, before)

        return new._replace(
            params=choose(new.params, state.params),
            opt_state=choose(new.opt_state, state.opt_state),
        ), info

    return guarded


def as_mean(loss: Any, batch: Batch) -> Mean:
    """The sums that a loss gave; a scalar is the mean over the rows of the batch.

    Raises:
      UserError: it gave something else.
    """
    if getattr(loss, "shape", None) == ():
        rows = jax.tree.leaves(batch)[0].shape[0]
        return Mean(rows * loss.astype(jnp.float32), jnp.full((), rows, jnp.float32))
    if isinstance(loss, Mean) and all(jnp.shape(sums) == () for sums in loss):
        return loss
    found = jax.tree.map(lambda x: f"{getattr(x, 'dtype', type(x))}{list(jnp.shape(x))}", loss)
    raise UserError(
        f"the loss gave {found}: expected Mean(total, weight) of two scalars, or the mean over the"
        " rows as a scalar. Losses of rows are summed by weighted_mean(losses, weights(batch,"
        " losses.shape)) of jaxtune.core.types."
    )


def cut(batch: Batch, num_microbatches: int) -> Batch:
    """A batch as equal parts of its rows, one after the other: [b ...] -> [n b/n ...].

    Raises:
      UserError: the number does not divide the rows, or these lie on a mesh with explicit axes.
    """
    rows = jax.tree.leaves(batch)[0].shape[0]
    if rows % num_microbatches:
        raise UserError(
            f"{num_microbatches} microbatches do not divide a batch of {rows} rows: expected a"
            " number that divides it. Change num_microbatches or the batch size."
        )
    if any(jax.typeof(x).sharding.spec[:1] not in ((), (None,)) for x in jax.tree.leaves(batch)):
        raise UserError(
            f"{num_microbatches} microbatches cut the rows of a batch that a mesh with explicit"
            " axes shares out: expected one. Make the mesh with axis_types=(AxisType.Auto,) for"
            " each axis, or set num_microbatches to 1."
        )
    return jax.tree.map(lambda x: x.reshape(num_microbatches, -1, *x.shape[1:]), batch)


def _accumulate(
    sums: SumsFn,
    params: Params,
    frozen: Params,
    batch: Batch,
    key: PRNGKey,
    num_microbatches: int,
    part_key: PartKey,
) -> Sums:
    """Adds losses and gradients over equal parts of the batch, one part at a time."""
    parts = cut(batch, num_microbatches)

    def body(total: Sums, part: tuple[Array, Batch]) -> tuple[Sums, None]:
        index, microbatch = part
        new = sums(params, frozen, microbatch, part_key(key, index))
        return jax.tree.map(jnp.add, total, new), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(sums, params, frozen, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(body, zeros, (jnp.arange(num_microbatches), parts))
    mean = jax.tree.map(lambda x: x / num_microbatches, total.statistics)
    return total._replace(statistics=mean)
