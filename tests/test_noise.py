"""Dropout masks: how often, how independent, and a function of key, row and column alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core import dropout

KEY = jax.random.key(3)


def counted(count):
    return jnp.arange(count, dtype=jnp.uint32)


def mask_of(rows, columns, rate=0.5, key=KEY):
    """Of the first tokens of the first examples, and of the first features."""
    examples, positions = np.divmod(np.arange(rows), 100)
    tokens = dropout.noise_ids_of(jnp.asarray(examples), jnp.asarray(positions))
    return np.asarray(dropout.keep_mask(key, rate, tokens[:, None], counted(columns)))


def attention_mask_of(tokens, heads, rate=0.5, key=KEY):
    """Of one row [h q s], whose tokens are those of one example."""
    names = dropout.noise_ids_of(jnp.full(tokens, 7), jnp.arange(tokens))[None]
    ones = jnp.ones((1, heads, tokens, tokens))
    return np.asarray(dropout.drop_probabilities(ones, rate, key, names, names)[0]) > 0


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_a_share_of_the_rate_is_dropped(rate):
    for kept in (mask_of(1000, 400, rate), attention_mask_of(200, 10, rate)):
        deviation = (rate * (1 - rate) / kept.size) ** 0.5
        assert abs(1 - rate - kept.mean()) <= 4 * deviation


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (0, 32), (128, 0), (100, 0)])
def test_neighbours_are_independent(shift):
    for kept in (mask_of(512, 512), attention_mask_of(512, 1)[0]):
        others = np.roll(kept, shift, axis=(0, 1))
        correlation = np.corrcoef(kept.ravel(), others.ravel())[0, 1]
        assert abs(correlation) < 4 / 512


def test_who_asks_whom_is_independent_of_the_other_way_round_and_of_other_heads():
    first, second = attention_mask_of(400, 2)
    for one, other in ((first, first.T), (first, second), (first, second.T)):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / 400


@pytest.mark.parametrize("other", [(0, 1), (1, 0), (1, 1), (5, 9), (2**20, 3), (-1, 0)])
def test_other_tokens_have_independent_masks(other):
    examples, positions = (jnp.array([0, number]) for number in other)
    tokens = dropout.noise_ids_of(examples, positions)
    kept = np.asarray(dropout.keep_mask(KEY, 0.5, tokens[:, None], counted(10_000)))
    assert abs(np.corrcoef(kept.astype(np.float64))[0, 1]) < 4 / 100


def test_names_of_tokens_do_not_meet():
    names = dropout.noise_ids_of(jnp.arange(200)[:, None], jnp.arange(512))
    assert names.dtype == jnp.uint32
    pairs = names.size**2 / 2
    assert names.size - len(np.unique(names)) <= 5 * pairs / 2**32


def test_keys_that_differ_in_any_way_give_independent_masks():
    """Of one token, and of many."""
    keys = [KEY, *(jax.random.fold_in(KEY, i) for i in range(20)), jax.random.key(4)]
    for shape in ((1, 10_000), (1000, 10)):
        masks = np.stack([mask_of(*shape, key=key).ravel() for key in keys])
        correlations = np.corrcoef(masks.astype(np.float64)) - np.eye(len(keys))
        assert np.abs(correlations).max() < 5 / 100


def test_counts_of_groups_are_those_of_a_binomial():
    """Rows and columns, whose names differ in all bits and in low ones."""
    for kept in (mask_of(1000, 1000, 0.1), attention_mask_of(1000, 1, 0.1)[0]):
        for axis in (0, 1):
            ratio = kept.astype(np.float64).sum(axis).var() / (1000 * 0.1 * 0.9)
            assert abs(ratio - 1) < 4 * (2 / 1000) ** 0.5


def test_the_mask_of_a_token_is_the_same_wherever_it_lies():
    tokens = dropout.noise_ids_of(jnp.arange(6)[:, None], jnp.arange(8))  # [b t]
    x = jax.random.normal(KEY, (6, 8, 16))
    whole = dropout.drop_features(x, 0.3, KEY, tokens)
    jitted = jax.jit(lambda x, tokens: dropout.drop_features(x, 0.3, KEY, tokens))
    np.testing.assert_array_equal(whole, jitted(x, tokens))
    packed = jitted(x.reshape(2, 24, 16), tokens.reshape(2, 24))
    np.testing.assert_array_equal(whole, packed.reshape(6, 8, 16))
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_array_equal(whole[order, 2:], jitted(x[order, 2:], tokens[order, 2:]))
    over_parts = jax.vmap(lambda x, tokens: dropout.drop_features(x, 0.3, KEY, tokens))
    np.testing.assert_array_equal(whole, over_parts(x, tokens))


def test_the_mask_of_attention_is_the_same_wherever_the_tokens_lie():
    tokens = dropout.noise_ids_of(jnp.arange(4)[:, None], jnp.arange(5))
    ones = jnp.ones((4, 3, 5, 5))
    alone = dropout.drop_probabilities(ones, 0.3, KEY, tokens, tokens)
    row = tokens[jnp.array([2, 0, 3])].reshape(1, 15)  # three of them behind one another
    packed = dropout.drop_probabilities(jnp.ones((1, 3, 15, 15)), 0.3, KEY, row, row)
    for slot, example in enumerate((2, 0, 3)):
        span = slice(5 * slot, 5 * slot + 5)
        np.testing.assert_array_equal(packed[0, :, span, span], alone[example])
    few = dropout.drop_probabilities(ones[:, :, :2], 0.3, KEY, tokens[:, 3:], tokens)
    np.testing.assert_array_equal(few, alone[:, :, 3:])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(dtype):
    x = jnp.ones((1000, 100), dtype)
    found = dropout.drop_features(x, 0.25, KEY, counted(1000))
    assert found.dtype == dtype
    values = np.unique(np.asarray(found, np.float64))
    np.testing.assert_allclose(values, [0, 4 / 3], rtol=1e-2)
    assert abs(np.asarray(found, np.float64).mean() - 1) < 0.01


def test_everything_may_be_dropped():
    found = dropout.drop_features(jnp.ones((2, 5)), 1.0, KEY, counted(2))
    np.testing.assert_array_equal(found, np.zeros((2, 5)))


def test_the_gradient_passes_where_the_value_does():
    x = jnp.linspace(1.0, 2.0, 50).reshape(5, 10)

    def drop(x):
        return dropout.drop_features(x, 0.4, KEY, counted(5))

    grads = jax.grad(lambda x: drop(x).sum())(x)
    np.testing.assert_allclose(grads, drop(x) / x, rtol=1e-6)


def test_in_bfloat16_the_same_is_dropped_and_of_the_gradient_too():
    x = jax.random.normal(jax.random.key(1), (4, 7, 32)).astype(jnp.bfloat16)
    ids = dropout.noise_ids_of(jnp.arange(4)[:, None], jnp.arange(7))
    drop = partial(dropout.drop_features, rate=0.25, key=jax.random.key(0), noise_ids=ids)
    kept = np.asarray(drop(jnp.ones(x.shape, jnp.float32))) > 0
    assert 0.6 < kept.mean() < 0.9
    y, pull = jax.vjp(drop, x)
    scaled = x * jnp.asarray(1 / 0.75, jnp.bfloat16)
    for found in (y, *pull(x)):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found, np.where(kept, scaled, 0))
