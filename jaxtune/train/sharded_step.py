"""The steps of one device, run by many on their parts of a batch."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from jaxtune.core.types import Array, Batch, Params, PRNGKey
from jaxtune.parallel import collectives
from jaxtune.parallel.sharding import ROWS, Placement
from jaxtune.train.step import EvalStep, PartKey, Sums, SumsFn

_ROWS, _WHOLE = PartitionSpec(ROWS), PartitionSpec()


def spread_sums(sums: SumsFn, placement: Placement, part_key: PartKey) -> SumsFn:
    """The sums over a batch whose rows the devices share.

    Each device gathers the parameters, computes the sums of its rows, and keeps the sum over all
    devices of its part of the gradients. So a leaf that is whole everywhere is summed once over
    all devices, and one that `fsdp` shares out is gathered once and its gradient scattered once,
    whatever the number of microbatches.

    Args:
      sums: of the rows of one device.
      placement: where parameters and rows lie.
      part_key: (key of the batch, number of the part) -> the key of a part.
    """

    def local(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        key = part_key(key, jax.lax.axis_index(ROWS))
        whole, others = (collectives.gather(placement, tree) for tree in (params, frozen))
        loss, grads, statistics = sums(whole, others, batch, key)
        return Sums(
            jax.lax.psum(loss, ROWS),
            collectives.sum_gradients(placement, grads),
            jax.lax.pmean(statistics, ROWS),
        )

    def spread(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        own, others = (collectives.held(placement, tree) for tree in (params, frozen))
        whole: Any = _WHOLE  # of the loss and of the statistics
        out = Sums(whole, own, whole)
        run = collectives.spread(local, placement, (own, others, _ROWS, _WHOLE), out)
        return run(params, frozen, batch, key)

    return collectives.on_mesh(sums, placement) if placement.num_shares == 1 else spread


def spread_eval(eval_step: EvalStep, placement: Placement) -> EvalStep:
    """The evaluation of a batch whose rows the devices share; its outputs are in rows too."""

    def local(params: Params, frozen: Params, batch: Batch) -> Any:
        whole, others = (collectives.gather(placement, tree) for tree in (params, frozen))
        means, outputs = eval_step(whole, others, batch)
        return jax.lax.psum(means, ROWS), outputs

    def spread(params: Params, frozen: Params, batch: Batch) -> Any:
        own, others = (collectives.held(placement, tree) for tree in (params, frozen))
        run = collectives.spread(local, placement, (own, others, _ROWS), (_WHOLE, _ROWS))
        return run(params, frozen, batch)

    return collectives.on_mesh(eval_step, placement) if placement.num_shares == 1 else spread


def spread_trunk(
    trunk: Callable[[Params, Batch], Array], placement: Placement
) -> Callable[[Params, Batch], Array]:
    """The trunk of a model on a batch whose rows the devices share."""

    def spread(params: Params, batch: Batch) -> Array:
        run = collectives.spread(
            lambda params, batch: trunk(collectives.gather(placement, params), batch),
            placement,
            (collectives.held(placement, params), _ROWS),
            _ROWS,
        )
        return run(params, batch)

    return collectives.on_mesh(trunk, placement) if placement.num_shares == 1 else spread
