"""The training, evaluation and prediction steps: pure functions, jitted by whoever calls them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxtune import trees
from jaxtune.errors import UserError
from jaxtune.state import TrainState
from jaxtune.types import ApplyFn, Batch, LossFn, Mean, Params, PRNGKey


class StepInfo(NamedTuple):
    """What a training step reports and does not keep.

    Attributes:
      loss: sum of the losses and of the weights of the batch, dropout on.
      grad_norm: global norm of the trainable leaves' gradient, before clipping.
    """

    loss: Mean
    grad_norm: Float[Array, ""]


TrainStep = Callable[[TrainState, Params, Batch], tuple[TrainState, StepInfo]]
EvalStep = Callable[[Params, Params, Batch], tuple[dict[str, Mean], Float[Array, "b c"]]]
PredictStep = Callable[[Params, Params, Batch], Float[Array, "b c"]]


def make_train_step(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    num_microbatches: int = 1,
    axis_name: str | None = None,
) -> TrainStep:
    """Makes `train_step(state, frozen, batch) -> (state, info)`.

    The gradient is that of the mean over all weights of the batch, whatever the split into
    microbatches or devices: sums are added first and divided once. It is taken of the trainable
    leaves alone, so the backward pass ends at the lowest of them.

    Args:
      apply_fn: the model.
      loss_fn: sum of losses and of weights.
      tx: an optimizer over the trainable tree, as `make_optimizer` builds.
      num_microbatches: the batch is cut into this many equal parts, one after the other, so that
        only one part's activations are alive. Axis b must be a multiple of it.
      axis_name: the device axis under `pmap` or `vmap`; None for one program (jit). Under
        `shard_map` pass it `check_vma=False`, or the gradients are summed over the axis twice.

    Returns:
      A pure function. `frozen` is the other half of the parameters and is never changed, so jit
      may donate the state (argument 0) but must not donate `frozen`. It raises a UserError at
      tracing where `num_microbatches` does not divide the batch.
    """

    def summed_loss(
        params: Params, frozen: Params, batch: Batch, key: PRNGKey
    ) -> tuple[Array, Mean]:
        outputs = apply_fn(trees.merge(params, frozen), batch, key=key, train=True)
        loss = loss_fn(outputs, batch)
        return loss.total, loss

    def sums(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> tuple[Mean, Params]:
        (_, loss), grads = jax.value_and_grad(summed_loss, has_aux=True)(params, frozen, batch, key)
        return loss, grads

    def train_step(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, StepInfo]:
        key = jax.random.fold_in(state.key, state.step)
        if axis_name is not None:  # each device draws its own noise
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if num_microbatches == 1:
            loss, grads = sums(state.params, frozen, batch, key)
        else:
            loss, grads = _accumulate(sums, state.params, frozen, batch, key, num_microbatches)
        if axis_name is not None:
            loss, grads = jax.lax.psum((loss, grads), axis_name)
        # A batch of no weight at all (every row is filling) has no gradient, not NaN.
        scale = 1.0 / jnp.maximum(loss.weight, jnp.finfo(jnp.float32).tiny)
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        info = StepInfo(loss, optax.tree.norm(grads))
        return TrainState(state.step + 1, params, opt_state, state.key), info

    return train_step


def make_eval_step(
    apply_fn: ApplyFn, metrics_fn: Callable[[Float[Array, "b c"], Batch], dict[str, Mean]]
) -> EvalStep:
    """Makes `eval_step(params, frozen, batch) -> (metrics, outputs)`, without dropout.

    The metrics are sums and weights: add them over batches, then divide. The outputs are for
    metrics that no sum can give, such as macro F1 or a rank correlation.
    """

    def eval_step(
        params: Params, frozen: Params, batch: Batch
    ) -> tuple[dict[str, Mean], Float[Array, "b c"]]:
        outputs = apply_fn(trees.merge(params, frozen), batch, key=None, train=False)
        return metrics_fn(outputs, batch), outputs

    return eval_step


def make_predict_step(apply_fn: ApplyFn) -> PredictStep:
    """Makes `predict_step(params, frozen, batch) -> outputs [b c]`, without dropout."""

    def predict_step(params: Params, frozen: Params, batch: Batch) -> Float[Array, "b c"]:
        return apply_fn(trees.merge(params, frozen), batch, key=None, train=False)

    return predict_step


def _accumulate(
    sums: Callable[[Params, Params, Batch, PRNGKey], tuple[Mean, Params]],
    params: Params,
    frozen: Params,
    batch: Batch,
    key: PRNGKey,
    num_microbatches: int,
) -> tuple[Mean, Params]:
    """Adds losses and gradients over equal parts of the batch, one part at a time."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    if rows % num_microbatches:
        raise UserError(
            f"{num_microbatches} microbatches do not divide a batch of {rows} rows: expected a"
            " number that divides it. Change num_microbatches or the batch size."
        )
    parts = jax.tree.map(
        lambda x: x.reshape(num_microbatches, -1, *x.shape[1:]),  # [b ...] -> [n b/n ...]
        batch,
    )

    def body(total: tuple[Mean, Params], part: tuple[Array, Batch]) -> tuple[tuple, None]:
        index, microbatch = part
        new = sums(params, frozen, microbatch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, new), None

    zeros = (Mean(jnp.zeros(()), jnp.zeros(())), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(body, zeros, (jnp.arange(num_microbatches), parts))
    return total
