import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core import trees

TREE = {"a": {"x": np.arange(3.0), "y": np.ones((2, 2), np.float16)}, "b": np.zeros(5, np.int8)}
KEEPS = [
    {"a": {"x": True, "y": False}, "b": True},
    {"a": {"x": True, "y": True}, "b": True},
    {"a": {"x": False, "y": False}, "b": False},
]


@pytest.mark.parametrize("keep", KEEPS)
def test_split_puts_each_leaf_in_one_half_and_none_in_the_other(keep):
    kept, rest = trees.split(TREE, keep)
    for path, flag in jax.tree_util.tree_leaves_with_path(keep):
        leaf, mine, other = (_at(tree, path) for tree in (TREE, kept, rest))
        assert (mine is leaf and other is None) if flag else (other is leaf and mine is None)


@pytest.mark.parametrize("keep", KEEPS)
def test_merge_undoes_split(keep):
    kept, rest = trees.split(TREE, keep)
    for merged in (trees.merge(kept, rest), trees.merge(rest, kept)):
        assert jax.tree.structure(merged) == jax.tree.structure(TREE)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, merged, TREE)))


@pytest.mark.parametrize("keep", KEEPS)
def test_merge_undoes_split_under_jit(keep):
    tree = jax.tree.map(jnp.asarray, TREE)
    kept, rest = trees.split(tree, keep)
    merged = jax.jit(trees.merge)(kept, rest)
    assert jax.tree.structure(merged) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, merged, tree)


def test_a_gradient_through_merge_has_the_holes_of_what_it_is_taken_of():
    kept, rest = trees.split({"a": jnp.ones(2), "b": jnp.full(2, 3.0)}, {"a": True, "b": False})

    def product(p, q):
        whole = trees.merge(p, q)
        return jnp.sum(whole["a"] * whole["b"])

    grads = jax.grad(product)(kept, rest)
    assert grads["b"] is None
    np.testing.assert_array_equal(grads["a"], [3.0, 3.0])


def test_merge_prefers_the_first():
    assert trees.merge({"a": 1, "b": None}, {"a": 2, "b": 3}) == {"a": 1, "b": 3}


def test_merge_refuses_trees_of_other_names():
    with pytest.raises(ValueError, match="key"):
        trees.merge({"a": None}, {"b": 1})


@pytest.mark.parametrize("abstract", [False, True])
def test_count_and_num_bytes(abstract):
    tree = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, TREE)) if abstract else TREE
    assert trees.count(tree) == 3 + 4 + 5
    width = 4 if abstract else 8  # numpy's own floats are float64
    assert trees.num_bytes(tree) == 3 * width + 4 * 2 + 5
    assert trees.count({"a": None}) == trees.num_bytes({}) == 0


def _at(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree
