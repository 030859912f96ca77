"""Splitting a parameter tree in two and putting it together again, with None for the holes."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxtune.core import heap
from jaxtune.core.types import Params


def split(tree: Params, keep: Any) -> tuple[Params, Params]:
    """Splits a tree by a tree of booleans.

    Args:
      tree: nested dicts of arrays.
      keep: a tree of bool of the same structure.

    Returns:
      (kept, rest): two trees of the original nesting; each leaf is in one of them, and None
      stands in its place in the other. JAX takes None for an empty subtree, so gradients,
      moments and checkpoints of `kept` hold nothing for the rest.
    """
    kept = jax.tree.map(lambda leaf, k: leaf if k else None, tree, keep)
    rest = jax.tree.map(lambda leaf, k: None if k else leaf, tree, keep)
    return kept, rest


def merge(first: Params, second: Params) -> Params:
    """The inverse of `split`: fills the holes of `first` from `second`. Works under jit."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None
    )


def replace(tree: Params, values: Params) -> Params:
    """`tree` with the leaves that `values`, a part of its nesting, has; holes stay holes."""
    if not isinstance(values, Mapping):
        return None if tree is None else values
    return {
        name: replace(node, values[name]) if name in values else node for name, node in tree.items()
    }


def shapes(tree: Any) -> Any:
    """Shape, dtype and sharding of each leaf, `jax.ShapeDtypeStruct`.

    Args:
      tree: of `jax.Array`, or of what this gives.
    """
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def free(tree: Params) -> Params:
    """Gives back the memory of all arrays, whoever else names them.

    Args:
      tree: of `jax.Array`; none may be read afterwards.

    Returns:
      Their `shapes`.
    """
    kept = shapes(tree)
    for leaf in jax.tree.leaves(tree):
        leaf.delete()
    heap.trim()
    return kept


def count(tree: Params) -> int:
    """Number of scalars in all leaves (concrete or abstract)."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def num_bytes(tree: Params) -> int:
    """Bytes of all leaves (concrete or abstract)."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def is_outline(tree: Params) -> bool:
    """Whether a tree is of shapes alone, `jax.ShapeDtypeStruct`."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))
