"""Dropout masks: how often, how independent, and a function of key and shape alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune import noise

KEY = jax.random.key(3)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_a_share_of_the_rate_is_dropped(rate):
    kept = np.asarray(noise.keep_mask(KEY, rate, (1000, 400)))
    deviation = (rate * (1 - rate) / kept.size) ** 0.5
    assert abs(1 - rate - kept.mean()) <= 4 * deviation


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (0, 32), (128, 0)])
def test_neighbours_are_independent(shift):
    kept = np.asarray(noise.keep_mask(KEY, 0.5, (512, 512))).astype(np.float64)
    correlation = np.corrcoef(kept.ravel(), np.roll(kept, shift, axis=(0, 1)).ravel())[0, 1]
    assert abs(correlation) < 4 / 512


def test_keys_that_differ_in_any_way_give_independent_masks():
    keys = [KEY, *(jax.random.fold_in(KEY, i) for i in range(20)), jax.random.key(4)]
    masks = np.stack([np.asarray(noise.keep_mask(key, 0.5, (10_000,))) for key in keys])
    correlations = np.corrcoef(masks.astype(np.float64)) - np.eye(len(keys))
    assert np.abs(correlations).max() < 5 / 100


def test_counts_of_groups_are_those_of_a_binomial():
    """Rows and columns, whose indices differ in low and in high bits."""
    kept = np.asarray(noise.keep_mask(KEY, 0.1, (1000, 1000))).astype(np.float64)
    for axis in (0, 1):
        ratio = kept.sum(axis).var() / (1000 * 0.1 * 0.9)
        assert abs(ratio - 1) < 4 * (2 / 1000) ** 0.5


def test_the_mask_is_the_same_under_jit_and_in_pieces():
    whole = noise.keep_mask(KEY, 0.3, (8, 6, 4))
    jitted = jax.jit(lambda key: noise.keep_mask(key, 0.3, (8, 6, 4)))(KEY)
    np.testing.assert_array_equal(whole, jitted)
    np.testing.assert_array_equal(noise.keep_mask(KEY, 0.3, (8 * 24,)), whole.ravel())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(dtype):
    x = jnp.ones((1000, 100), dtype)
    found = noise.dropout(x, 0.25, KEY)
    assert found.dtype == dtype
    values = np.unique(np.asarray(found, np.float64))
    np.testing.assert_allclose(values, [0, 4 / 3], rtol=1e-2)
    assert abs(np.asarray(found, np.float64).mean() - 1) < 0.01


def test_everything_may_be_dropped():
    np.testing.assert_array_equal(noise.dropout(jnp.ones(5), 1.0, KEY), np.zeros(5))


def test_the_gradient_passes_where_the_value_does():
    x = jnp.linspace(1.0, 2.0, 50)
    grads = jax.grad(lambda x: noise.dropout(x, 0.4, KEY).sum())(x)
    np.testing.assert_allclose(grads, noise.dropout(x, 0.4, KEY) / x, rtol=1e-6)
