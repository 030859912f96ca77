"""A `flax.nnx` module as what a step takes: a pure function and a tree of parameters."""

import re
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Batch, Params, PRNGKey, WithStatistics


class FromNnx(NamedTuple):
    """A module, split.

    Attributes:
      apply_fn: pure; in training it gives `WithStatistics` where the module has running statistics.
      params: nested dicts by the attributes of the module and the places in its lists, such as
        `layers/0/kernel`; running statistics are among them.
      statistics: a regex for these, as `partition.set_statistics` takes it; None without any.
    """

    apply_fn: ApplyFn
    params: Params
    statistics: str | None


def from_nnx(
    module: nnx.Module, call: Callable[[Any, Batch], Any] = lambda module, batch: module(batch)
) -> FromNnx:
    """Splits a module; it is not changed, and later changes of it are not seen.

    `nnx.Param` and `nnx.BatchStat` become parameters. Streams of random numbers (of dropout, say)
    start anew in each training step, from `key` and their names. Other variables keep their values.
    `module.train()` is called where `train` is true, `module.eval()` elsewhere.

    Args:
      module: any, its lists and dicts of layers too.
      call: (the module with the parameters of a step, a batch) -> outputs, such as
        `lambda module, batch: module(batch["x"])`.

    Raises:
      UserError: no module, or one without parameters. The function raises one where it trains
        without a key, or the call changes a variable of another kind.
    """
    if not isinstance(module, nnx.Module):
        raise UserError(f"from_nnx is given {type(module).__name__}: expected a flax.nnx.Module.")
    graph, trained, statistics, noise, rest = nnx.split(module, *_KINDS)
    flat, moving = _flat(trained), _flat(statistics)
    if not flat:
        raise UserError(f"{type(module).__name__} has no nnx.Param, so there is nothing to train.")
    streams = bool(jax.tree.leaves(noise))

    def apply_fn(params: Params, batch: Batch, *, key: PRNGKey | None, train: bool) -> Any:
        if train and streams and key is None:
            raise UserError(f"{type(module).__name__} draws random numbers: training needs a key.")
        leaves = paths.flatten(params)
        own, running = _fill(trained, leaves), _fill(statistics, leaves)
        drawn = _reseed(noise, key) if train and key is not None else _copy(noise)
        model = nnx.merge(graph, own, running, drawn, _copy(rest))
        model.train() if train else model.eval()
        outputs = call(model, batch)
        _, own, running, _, others = nnx.split(model, *_KINDS)
        _check_kept({name: leaves[name] for name in flat} | _flat(rest), _flat(own) | _flat(others))
        if not train or not moving:
            return outputs
        return WithStatistics(outputs, paths.unflatten(_flat(running)))

    names = "|".join(map(re.escape, moving))
    return FromNnx(apply_fn, paths.unflatten(flat | moving), f"^(?:{names})$" if moving else None)


_KINDS = (nnx.Param, nnx.BatchStat, nnx.RngState, ...)


def _flat(state: nnx.State) -> dict[str, Any]:
    """The values by name, in the order of the state's leaves."""
    return paths.flatten(nnx.to_pure_dict(state))


def _fill(state: nnx.State, leaves: dict[str, Any]) -> nnx.State:
    """The state with new variables, of the values under its names."""
    return jax.tree.unflatten(jax.tree.structure(state), [leaves[name] for name in _flat(state)])


def _copy(state: nnx.State) -> nnx.State:
    """New variables of the same values: a module would write to those that it was merged from."""
    return jax.tree.map(lambda leaf: leaf, state)


def _reseed(state: nnx.State, key: PRNGKey) -> nnx.State:
    """Streams at their start, each with a key of its own."""

    def start(name: str, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros_like(leaf)  # how often a stream was drawn from
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return paths.map_named(start, state)


def _check_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [name for name, leaf in before.items() if after.get(name) is not leaf]
    if changed:
        raise UserError(
            f"the module changes {changed[0]!r} in its call, and the change would be lost: from_nnx"
            " carries on nnx.BatchStat alone. Make it one, or write an apply_fn with nnx.split and"
            " nnx.merge."
        )
