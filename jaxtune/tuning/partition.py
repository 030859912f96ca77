"""The one label tree that decides what is trained.

A strategy is frozen data that gives each leaf of a parameter tree `FROZEN` or the name of its
group. The gradient, the optimizer and the checkpoint all follow from those labels, so they cannot
disagree.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxtune.core import paths, trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import STATISTICS, Params

FROZEN = "frozen"
TRAINABLE = "trainable"


class Strategy(Protocol):
    """What is trained. Implementations are frozen dataclasses."""

    def labels(self, params: Params) -> Any:
        """A tree of str with the structure of `params`; only names and shapes are read."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A strategy that trains other parameters in each stage of a run."""

    stage_by: str
    stage_length: float

    def labels(self, params: Params) -> Any:
        """The labels of the last stage."""
        ...

    def stages(self, params: Params) -> tuple[Any, ...]:
        """The labels of each stage, in order."""
        ...


def stages(strategy: Strategy, params: Params) -> tuple[Any, ...]:
    """The labels of each stage: one tree, unless the strategy is `Staged`.

    Raises:
      UserError: as `label`.
    """
    last = label(strategy, params)
    return strategy.stages(params) if isinstance(strategy, Staged) else (last,)


def label(strategy: Strategy, params: Params) -> Any:
    """One label for each leaf of `params`.

    Args:
      strategy: what is trained.
      params: any tree of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      A tree of str of the same structure: FROZEN, or the name of the leaf's group.

    Raises:
      UserError: the strategy does not fit this tree, all of it is frozen, or a leaf is no array, or
        one that is trained has no gradient.
    """
    labels = strategy.labels(params)
    if all(name == FROZEN for name in jax.tree.leaves(labels)):
        raise UserError(f"{strategy} freezes every parameter, so there is nothing to train.")
    columns = paths.leaf_names(params), jax.tree.leaves(params), jax.tree.leaves(labels)
    for name, leaf, group in zip(*columns, strict=True):
        if not hasattr(leaf, "dtype"):
            raise UserError(
                f"the parameter {name!r} is {leaf!r}: expected arrays alone. Take the rest out"
                " first, as equinox.partition(model, equinox.is_array) does."
            )
        if group != FROZEN and not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise UserError(
                f"the parameter {name!r} is {leaf.dtype}, which has no gradient: take it out of the"
                f" parameters, or freeze it, as {name + '=frozen'!r} of the strategy rules does."
            )
    return labels


def set_statistics(labels: Any, regex: str | None, *, trained: bool) -> Any:
    """The labels with STATISTICS, or FROZEN, for the leaves whose names match.

    Args:
      labels: from a strategy.
      regex: for running statistics; None for a model without any.
      trained: whether they follow the training batches.
    """
    if regex is None:
        return labels
    pattern = paths.compile_pattern(regex)
    value = STATISTICS if trained else FROZEN
    flat = [value if pattern.search(leaf) else old for leaf, old in paths.flatten(labels).items()]
    return jax.tree.unflatten(jax.tree.structure(labels), flat)


def partition(params: Params, labels: Any) -> tuple[Params, Params]:
    """Splits `params` into (trainable, frozen) trees with None for the holes."""
    return trees.split(params, jax.tree.map(lambda name: name != FROZEN, labels))


def trainable_labels(labels: Any) -> Any:
    """The label tree with None where frozen: the structure of the trainable parameters."""
    return jax.tree.map(lambda name: None if name == FROZEN else name, labels)


def freeze(labels: Any, prefixes: Sequence[str]) -> Any:
    """The labels with FROZEN for the leaves under some prefixes.

    Raises:
      UserError: nothing else is trained.
    """
    if not prefixes:
        return labels
    under = tuple(f"{p}/" for p in prefixes)
    flat = {
        leaf: FROZEN if leaf.startswith(under) else old
        for leaf, old in paths.flatten(labels).items()
    }
    if all(name == FROZEN for name in flat.values()):
        raise UserError(
            f"config.tuning: nothing but {', '.join(prefixes)} would be trained, which is fitted"
            " on what stands below it: expected a strategy that trains layers, such as full."
        )
    return jax.tree.unflatten(jax.tree.structure(labels), list(flat.values()))


def thaw(labels: Any, prefixes: Sequence[str], name: str) -> Any:
    """The labels with `name` in the place of FROZEN for the leaves under some prefixes."""
    flat = {
        leaf: name if old == FROZEN and leaf.startswith(tuple(f"{p}/" for p in prefixes)) else old
        for leaf, old in paths.flatten(labels).items()
    }
    return jax.tree.unflatten(jax.tree.structure(labels), list(flat.values()))
