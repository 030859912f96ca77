"""The one label tree that decides what is trained.

A strategy is frozen data that gives each leaf of a parameter tree `FROZEN` or the name of its
group. The gradient, the optimizer and the checkpoint all follow from those labels, so they cannot
disagree.
"""

from collections import Counter
from typing import Any, Protocol

import jax

from jaxtune import trees
from jaxtune.errors import UserError
from jaxtune.types import Params

FROZEN = "frozen"
TRAINABLE = "trainable"


class Strategy(Protocol):
    """What is trained. Implementations are frozen dataclasses."""

    def labels(self, params: Params) -> Any:
        """A tree of str with the structure of `params`; only names and shapes are read."""
        ...


def label(strategy: Strategy, params: Params) -> Any:
    """One label for each leaf of `params`.

    Args:
      strategy: what is trained.
      params: nested dicts of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      A tree of str of the same structure: FROZEN, or the name of the leaf's group.

    Raises:
      UserError: the strategy does not fit this tree, or all of it is frozen.
    """
    labels = strategy.labels(params)
    if all(name == FROZEN for name in jax.tree.leaves(labels)):
        raise UserError(f"{strategy} freezes every parameter, so there is nothing to train.")
    return labels


def partition(params: Params, labels: Any) -> tuple[Params, Params]:
    """Splits `params` into (trainable, frozen) trees with None for the holes."""
    return trees.split(params, jax.tree.map(lambda name: name != FROZEN, labels))


def trainable_labels(labels: Any) -> Any:
    """The label tree with None where frozen: the structure of the trainable parameters."""
    return jax.tree.map(lambda name: None if name == FROZEN else name, labels)


def group_sizes(params: Params, labels: Any) -> Counter[str]:
    """Number of scalars that carry each label."""
    sizes: Counter[str] = Counter()
    for leaf, name in zip(jax.tree.leaves(params), jax.tree.leaves(labels), strict=True):
        sizes[name] += leaf.size
    return sizes
