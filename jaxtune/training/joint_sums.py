"""The sums of a step whose loss reads the outputs of the whole batch together.

In a contrastive loss each text is compared with all others of its batch, wherever they are
computed: in other microbatches and on other devices. So outputs come first, without what a gradient
needs; then the loss of all of them, and its gradient by each output; then each microbatch once
more, from whose outputs that gradient goes on down. Only one microbatch's activations are ever
alive, and the loss and the gradient are those of the whole batch.

Source: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Array, Batch, Mean, Params, PRNGKey, WithStatistics
from jaxtune.parallel import collectives
from jaxtune.training.step import AnyLossFn, PartKey, Sums, SumsFn, as_mean, cut


def make_joint_sums(
    apply_fn: ApplyFn,
    loss_fn: AnyLossFn,
    num_microbatches: int = 1,
    part_key: PartKey = jax.random.fold_in,
) -> SumsFn:
    """As `step.make_sums`, of a loss that is no sum over rows.

    With several microbatches the model runs forward twice, with the same noise: the key of a part
    is the same in both passes.

    Args:
      apply_fn: the model, without running statistics.
      loss_fn: of the outputs and the batch; where several devices have parts of the batch (under
        `shard_map` or `pmap` over the axes that `parallel.sharding` names), of all of them.
      num_microbatches: parts of this device's rows.
      part_key: as of `make_sums`.

    Returns:
      The sums over this device's rows: its share of the loss, and the gradient through its own
      outputs. Both are to be added over the devices.
    """

    def embed(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Array:
        outputs: Any = apply_fn(trees.merge(params, frozen), batch, key=key, train=True)
        if isinstance(outputs, WithStatistics):
            raise UserError(
                "a loss of the whole batch needs a model without running statistics, whose outputs"
                " are the same in both passes over a microbatch. Freeze them."
            )
        return outputs

    def whole(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        outputs, pull = jax.vjp(lambda p: embed(p, frozen, batch, key), params)
        loss, by_output = _loss_of_all(loss_fn, outputs, batch)
        return Sums(loss, pull(by_output)[0], {})

    def in_parts(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        parts, numbers = cut(batch, num_microbatches), jnp.arange(num_microbatches)
        outputs = jax.lax.map(
            lambda part: embed(params, frozen, part[1], part_key(key, part[0])), (numbers, parts)
        )  # [n b/n ...]
        joined = outputs.reshape(-1, *outputs.shape[2:])  # [b ...]
        loss, by_output = _loss_of_all(loss_fn, joined, batch)

        def body(grads: Params, part: tuple[Array, Batch, Array]) -> tuple[Params, None]:
            number, microbatch, cotangent = part
            own_key = part_key(key, number)
            _, pull = jax.vjp(lambda p: embed(p, frozen, microbatch, own_key), params)
            return jax.tree.map(jnp.add, grads, pull(cotangent)[0]), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        cotangents = by_output.reshape(outputs.shape)
        grads, _ = jax.lax.scan(body, zeros, (numbers, parts, cotangents))
        return Sums(loss, grads, {})

    return whole if num_microbatches == 1 else in_parts


def _loss_of_all(loss_fn: AnyLossFn, outputs: Array, batch: Batch) -> tuple[Mean, Array]:
    """This device's share of the loss of all outputs, and the gradient by its own, [b ...]."""
    every, fields = collectives.gather_rows((outputs, batch))

    def total(outputs: Array) -> tuple[Array, Mean]:
        loss = as_mean(loss_fn(outputs, fields), fields)
        return loss.total, loss

    (_, loss), by_output = jax.value_and_grad(total, has_aux=True)(every)
    parts = collectives.num_row_parts()
    return Mean(loss.total / parts, loss.weight / parts), collectives.own_part(by_output)
