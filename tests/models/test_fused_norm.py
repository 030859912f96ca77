"""The kernels of a residual's sum and norm, interpreted, against the operations one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core import dropout
from jaxtune.models.fused_call import Lowering
from jaxtune.models.fused_norm import Noise, fits, normed_sum

KEY, INTERPRETED, EPS = jax.random.key(3), Lowering("triton", is_interpreted=True), 1e-5


def plain(y, residual, own_bias, scale, bias, ids, rate):
    y = y + own_bias
    total = residual + (dropout.drop_features(y, rate, KEY, ids) if rate else y)
    centred = total - total.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPS) * scale + bias


def fused(y, residual, own_bias, scale, bias, ids, rate):
    noise = Noise(jax.random.key_data(KEY).reshape(-1), ids) if rate else None
    vectors = own_bias, scale, bias
    return normed_sum(y, residual, vectors, noise, rate, EPS, INTERPRETED)


def inputs(shape, dtype):
    keys = jax.random.split(jax.random.key(0), 5)
    y, residual = (1.5 * jax.random.normal(key, shape).astype(dtype) for key in keys[:2])
    own_bias, scale, bias = (jax.random.normal(key, shape[-1:]) for key in keys[2:])
    ids = dropout.noise_ids_of(jnp.arange(shape[0])[:, None], jnp.arange(shape[1]))
    return (y, residual, own_bias, 1 + 0.2 * scale, bias), ids


def value_and_gradients(function, arguments, ids, rate):
    weights = jax.random.normal(jax.random.key(9), arguments[0].shape)

    def loss(*arguments):
        found = function(*arguments, ids, rate).astype(jnp.float32)
        return jnp.sum(found * weights), found

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))
    (_, found), grads = run(*arguments)
    return [np.asarray(x, np.float64) for x in (found, *grads)]


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(2, 12, 192), (1, 8, 64), (3, 1000, 128)])
def test_value_and_gradients_are_those_of_the_operations_one_by_one(shape, rate):
    arguments, ids = inputs(shape, jnp.float32)
    wanted = value_and_gradients(plain, arguments, ids, rate)
    found = value_and_gradients(fused, arguments, ids, rate)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * max(1.0, np.abs(y).max()))


def test_in_bfloat16_they_differ_by_rounding():
    arguments, ids = inputs((2, 12, 192), jnp.bfloat16)
    wide = (*(x.astype(jnp.float32) for x in arguments[:2]), *arguments[2:])
    wanted = value_and_gradients(plain, wide, ids, 0.1)
    found = value_and_gradients(fused, arguments, ids, 0.1)
    for x, y in zip(found, wanted, strict=True):
        assert np.linalg.norm(x - y) < 0.01 * np.linalg.norm(y)


def test_the_sum_alone_waits_for_the_gradient():
    arguments, ids = inputs((2, 12, 192), jnp.bfloat16)
    shapes = jax.eval_shape(
        lambda *args: jax.vjp(lambda *parts: fused(*parts, ids, 0.1), *args)[1], *arguments
    )
    kept = [(x.shape, x.dtype) for x in jax.tree.leaves(shapes) if x.size > 24 * 8]
    assert kept == [((24, 192), jnp.bfloat16)]


@pytest.mark.parametrize(
    ("tokens", "features", "expected"),
    [(4096, 768, True), (8, 384, True), (12, 768, False), (8, 312, False), (8, 64 * 9, False)],
)
def test_it_is_for_tokens_and_features_that_have_tiles(tokens, features, expected):
    assert fits(tokens, features) == expected
