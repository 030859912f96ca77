"""The steps of one device, run by many on their parts of a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import PartitionSpec

from jaxtune.core.types import Array, Batch, Params, PRNGKey
from jaxtune.parallel import collectives
from jaxtune.parallel.sharding import ROWS, Sharding
from jaxtune.training.compiled import Compiled
from jaxtune.training.eval_step import EvalStep
from jaxtune.training.step import Apply, PartKey, Sums, SumsFn, apply_whole

_ROWS, _WHOLE = PartitionSpec(ROWS), PartitionSpec()


def shard_sums(sums: SumsFn, sharding: Sharding, part_key: PartKey) -> SumsFn:
    """The sums over a batch whose rows the devices share.

    Each device gathers the parameters, computes the sums of its rows, and keeps the sum over all
    devices of its part of the gradients. So a leaf that `fsdp` shares out is gathered once and its
    gradient scattered once, over `fsdp` and then over `data`, whatever the number of microbatches.

    Args:
      sums: of the rows of one device.
      sharding: where parameters and rows lie.
      part_key: (key of the batch, number of the part) -> the key of a part.
    """

    def local(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        key = part_key(key, jax.lax.axis_index(ROWS))
        whole, others = (collectives.gather(sharding, tree) for tree in (params, frozen))
        loss, grads, statistics = sums(whole, others, batch, key)
        return Sums(
            jax.lax.psum(loss, ROWS),
            collectives.sum_gradients(sharding, grads),
            jax.lax.pmean(statistics, ROWS),
        )

    def sharded(params: Params, frozen: Params, batch: Batch, key: PRNGKey) -> Sums:
        own, others = (collectives.held(sharding.spec, tree) for tree in (params, frozen))
        whole: Any = _WHOLE  # of the loss and of the statistics
        out = Sums(whole, collectives.held(sharding.part, params), whole)
        run = collectives.map_rows(local, sharding, (own, others, _ROWS, _WHOLE), out)
        return run(params, frozen, batch, key)

    return collectives.on_mesh(sums, sharding) if sharding.num_shares == 1 else sharded


def shard_apply(sharding: Sharding) -> Apply:
    """The update of parameters, of which each device computes the part whose moments it keeps.

    What `data` shares out is gathered afterwards. Beside that, only the squares that a norm of the
    gradient adds over the devices are sent, a number for each leaf.
    """

    def apply(
        tx: optax.GradientTransformation, grads: Params, opt_state: optax.OptState, params: Params
    ) -> tuple[Params, optax.OptState]:
        own = collectives.in_parts(sharding, params)
        new, opt_state = apply_whole(tx, grads, opt_state, own)
        new = collectives.in_parts(sharding, new)  # or the compiler may gather what leads to it
        return collectives.gather_parts(sharding, new), opt_state

    return apply


def shard_eval(eval_step: EvalStep, sharding: Sharding) -> EvalStep:
    """The evaluation of a batch whose rows the devices share; its outputs are in rows too."""

    def local(params: Params, frozen: Params, batch: Batch) -> Any:
        whole, others = (collectives.gather(sharding, tree) for tree in (params, frozen))
        means, outputs = eval_step(whole, others, batch)
        return jax.lax.psum(means, ROWS), outputs

    def sharded(params: Params, frozen: Params, batch: Batch) -> Any:
        own, others = (collectives.held(sharding.spec, tree) for tree in (params, frozen))
        run = collectives.map_rows(local, sharding, (own, others, _ROWS), (_WHOLE, _ROWS))
        return run(params, frozen, batch)

    return collectives.on_mesh(eval_step, sharding) if sharding.num_shares == 1 else sharded


def compile_eval(eval_step: EvalStep, sharding: Sharding | None) -> Compiled:
    """The evaluation as one device runs it, or as many do, each with the outputs of all.

    Args:
      eval_step: of one device.
      sharding: where parameters and rows lie; None for one device.
    """
    if sharding is None:
        return Compiled(eval_step)
    transform = partial(jax.jit, out_shardings=sharding.whole)
    return Compiled(shard_eval(eval_step, sharding), transform=transform)


def shard_trunk(
    trunk: Callable[[Params, Batch], Array], sharding: Sharding
) -> Callable[[Params, Batch], Array]:
    """The trunk of a model on a batch whose rows the devices share."""

    def sharded(params: Params, batch: Batch) -> Array:
        run = collectives.map_rows(
            lambda params, batch: trunk(collectives.gather(sharding, params), batch),
            sharding,
            (collectives.held(sharding.spec, params), _ROWS),
            _ROWS,
        )
        return run(params, batch)

    return collectives.on_mesh(trunk, sharding) if sharding.num_shares == 1 else sharded
