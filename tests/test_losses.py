import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxtune.core.errors import UserError
from jaxtune.core.types import Mean, weighted_mean
from jaxtune.training.losses import (
    binary_cross_entropy,
    cross_entropy,
    make_binary_cross_entropy,
    make_cross_entropy,
    span_cross_entropy,
    squared_error,
)


def random_batch(seed, n=9, c=4, spread=1.0):
    rng = np.random.default_rng(seed)
    logits = (spread * rng.normal(size=(n, c))).astype(np.float32)
    weight = rng.choice([0.0, 0.5, 1.0], n).astype(np.float32)
    return logits, rng.integers(0, c, n).astype(np.int32), weight


@pytest.mark.parametrize("spread", [1.0, 1e3, 1e5])
def test_cross_entropy_is_that_of_float64(spread):
    logits, labels, weight = random_batch(0, spread=spread)
    z = logits.astype(np.float64)
    losses = logsumexp(z, axis=-1) - z[np.arange(len(z)), labels]
    loss = cross_entropy(jnp.asarray(logits), {"labels": labels, "weight": weight})
    np.testing.assert_allclose(loss.total, (losses * weight).sum(), rtol=1e-5)
    np.testing.assert_allclose(loss.weight, weight.sum())
    np.testing.assert_allclose(loss.value, (losses * weight).sum() / weight.sum(), rtol=1e-5)


def test_cross_entropy_has_a_finite_gradient_at_large_logits():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    batch = {"labels": np.array([0, 0], np.int32), "weight": np.ones(2, np.float32)}
    grad = jax.grad(lambda z: cross_entropy(z, batch).total)(logits)
    np.testing.assert_allclose(grad, [[0, 0], [-1, 1]], atol=1e-6)


def test_squared_error_is_that_of_float64():
    rng = np.random.default_rng(1)
    outputs = rng.normal(size=(9, 1)).astype(np.float32)
    labels = rng.normal(size=9).astype(np.float32)
    weight = rng.choice([0.0, 0.5, 1.0], 9).astype(np.float32)
    loss = squared_error(jnp.asarray(outputs), {"labels": labels, "weight": weight})
    errors = outputs[:, 0].astype(np.float64) - labels.astype(np.float64)
    np.testing.assert_allclose(loss.total, (errors**2 * weight).sum(), rtol=1e-5)
    np.testing.assert_allclose(loss.weight, weight.sum())


@pytest.mark.parametrize(("loss_fn", "columns"), [(cross_entropy, 3), (squared_error, 1)])
def test_rows_of_weight_zero_do_not_count(loss_fn, columns):
    outputs, _, _ = random_batch(2, n=6, c=columns)
    kind = np.int32 if columns > 1 else np.float32
    labels = np.array([0, 1, 0, 1, 0, 1], kind)
    weight = np.array([1, 1, 1, 1, 0, 0], np.float32)
    some = loss_fn(jnp.asarray(outputs), {"labels": labels, "weight": weight})
    few = loss_fn(jnp.asarray(outputs[:4]), {"labels": labels[:4], "weight": weight[:4]})
    np.testing.assert_allclose(some, few, rtol=1e-6)
    none = loss_fn(jnp.asarray(outputs), {"labels": labels, "weight": 0 * weight})
    assert (float(none.total), float(none.weight)) == (0.0, 0.0)
    assert np.isnan(none.value)


@pytest.mark.parametrize(("loss_fn", "columns"), [(cross_entropy, 3), (squared_error, 1)])
def test_bfloat16_outputs_are_summed_in_float32(loss_fn, columns):
    n = 600  # bfloat16 cannot count this far
    outputs = jnp.full((n, columns), 0.125, jnp.bfloat16)
    kind = np.int32 if columns > 1 else np.float32
    batch = {"labels": np.zeros(n, kind), "weight": np.ones(n, np.float32)}
    loss = loss_fn(outputs, batch)
    each = np.log(3) if columns > 1 else 0.125**2
    assert loss.total.dtype == loss.weight.dtype == jnp.float32
    np.testing.assert_allclose(loss.total, n * each, rtol=1e-5)


def test_weighted_mean_counts_booleans_and_bfloat16_in_float32():
    n = 600
    mean = weighted_mean(jnp.ones(n, bool), jnp.ones(n, jnp.bfloat16))
    assert mean.total.dtype == mean.weight.dtype == jnp.float32
    assert (float(mean.total), float(mean.weight)) == (n, n)


def test_means_add_leaf_by_leaf():
    a, b = Mean(jnp.array(1.0), jnp.array(2.0)), Mean(jnp.array(5.0), jnp.array(1.0))
    assert float(jax.tree.map(jnp.add, a, b).value) == 2.0


TOKENS = {
    "labels": np.array([[0, 2], [1, 1], [2, 0]], np.int32),
    "attention_mask": np.ones((3, 2), np.int32),
}
ROWS = {"labels": np.eye(3, dtype=np.float32), "attention_mask": None}


@pytest.mark.parametrize(
    ("loss_fn", "batch", "shape", "weighed"),
    [
        (cross_entropy, TOKENS, (3, 2, 3), (3, 2)),
        (cross_entropy, ROWS, (3, 3), (3,)),
        (make_cross_entropy(np.array([1.0, 2.0, 3.0]), 0.1, 1.0), TOKENS, (3, 2, 3), (3, 2)),
        (binary_cross_entropy, ROWS, (3, 3), (3,)),
        (make_binary_cross_entropy(None, 0.1, 1.0), ROWS, (3, 3), (3,)),
        (squared_error, ROWS, (3, 3), (3,)),
        (span_cross_entropy, TOKENS | {"labels": np.ones((3, 2), np.int32)}, (3, 2, 2), (3,)),
    ],
)
def test_without_weights_all_count_once(loss_fn, batch, shape, weighed):
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    found = loss_fn(outputs, batch)
    wanted = loss_fn(outputs, batch | {"weight": np.ones(weighed, np.float32)})
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(UserError, match=r"weight has the shape \[2\], but what it weighs has \[3"):
        loss_fn(outputs, batch | {"weight": np.ones(2, np.float32)})


def test_weights_of_rows_are_none_of_tokens():
    """They would be broadcast, to the wrong axis, where a row has as many tokens as rows."""
    outputs, labels = jnp.zeros((2, 2, 3)), np.zeros((2, 2), np.int32)
    with pytest.raises(UserError, match="or for each token where tokens are scored"):
        cross_entropy(outputs, {"labels": labels, "weight": np.ones(2, np.float32)})
