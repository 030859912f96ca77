"""Kept states come back as they went in, whatever the layout, in memory or in a file."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.frozen.store import ActivationCache

SIZES = np.array([3, 1, 4, 2])
PADDED = BatchIndex(np.array([2, 0]), 5)
PACKED = BatchIndex(np.array([0, 2, 1]), 8, ((2, 0), (), (1,)), 3)


def states(rows, length, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, length, 6)).astype(np.float32)


@pytest.mark.parametrize("limit", [10**6, 0])
def test_from_one_layout_into_another(limit, tmp_path):
    cache = ActivationCache(SIZES, (6,), np.float32, limit, tmp_path)
    assert cache.in_memory == bool(limit)
    assert cache.num_bytes == 10 * 6 * 4
    assert not cache.holds(PADDED.indices)
    given = states(3, 5)
    cache.put(PADDED, given)
    assert cache.holds(np.array([0, 2]))
    assert not cache.holds(np.array([0, 1]))
    more = states(3, 8, seed=1)
    cache.put(PACKED, more)  # example 1 alone is new
    found = cache.take(PACKED, 3, 8)
    wanted = np.zeros((3, 8, 6), np.float32)
    wanted[0, 0] = more[0, 0]
    wanted[0, 1:4] = given[1, :3]
    wanted[2, :4] = given[0, :4]
    np.testing.assert_array_equal(found, wanted)
    assert not list(tmp_path.iterdir())  # the file has no name


def test_bfloat16_keeps_what_bfloat16_can():
    cache = ActivationCache(SIZES, (6,), jnp.dtype("bfloat16"), 10**6)
    given = states(2, 5)
    cache.put(PADDED, given)
    found = cache.take(PADDED, 2, 5)
    assert found.dtype == np.float32
    assert cache.num_bytes == 10 * 6 * 2
    np.testing.assert_allclose(found[0, :4], given[0, :4], rtol=2**-8)
    assert not np.array_equal(found[0, :4], given[0, :4])


def test_one_state_of_each_example():
    cache = ActivationCache(np.ones(4, np.int64), (6,), np.float32, 10**6)
    given = states(3, 3)
    cache.put(PACKED, given)
    found = cache.take(BatchIndex(np.array([1, 0]), 1), 4, 1)
    np.testing.assert_array_equal(found[:2, 0], [given[0, 0], given[0, 1]])
    np.testing.assert_array_equal(found[2:], 0)


def test_only_the_named_examples_are_kept():
    cache = ActivationCache(SIZES, (6,), np.float32, 10**6)
    cache.put(PACKED, states(3, 8), only=[1])
    assert cache.holds(np.array([1]))
    assert not cache.holds(np.array([0]))


@pytest.mark.parametrize("only", [None, [1]])
def test_of_copies_in_a_batch_the_first_is_kept(only):
    cache = ActivationCache(SIZES, (6,), np.float32, 10**6)
    given = states(2, 1)
    cache.put(BatchIndex(np.array([1, 1]), 1), given, only)
    found = cache.take(BatchIndex(np.array([1]), 1), 1, 1)
    np.testing.assert_array_equal(found[0], given[0])
