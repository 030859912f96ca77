import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.device import Device
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.layers import layer_norm
from jaxtune.models.norm import normalised

NARROW = arithmetic(jnp.bfloat16, Device("gpu", 9.0))


def reference(x, g, scale, bias, eps):
    """In float64: what it gives, and its gradients by the equations of a mean and a variance."""
    n = x.shape[-1]
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    to_y = g * scale
    to_variance = (to_y * centred).sum(-1, keepdims=True) * -0.5 / deviation**3
    to_x = to_y / deviation + to_variance * 2 * centred / n
    to_x = to_x - (to_y / deviation).sum(-1, keepdims=True) / n
    y, rows = centred / deviation, (0, 1)
    return y * scale + bias, to_x, (g * y).sum(rows), g.sum(rows)


@pytest.mark.parametrize(("mean", "eps"), [(0.0, 1e-12), (0.5, 0.3), (3000.0, 1e-5)])
def test_value_and_gradients_are_the_equations(mean, eps):
    rng = np.random.default_rng(0)
    x, g = rng.normal(mean, 2.0, (3, 5, 16)).astype(np.float32), rng.normal(size=(3, 5, 16))
    g = np.asarray(jnp.asarray(g, jnp.bfloat16), np.float64)
    scale, bias = rng.normal(1, 0.2, 16).astype(np.float32), rng.normal(size=16).astype(np.float32)
    y, pull = jax.vjp(lambda *args: normalised(*args, eps), *map(jnp.asarray, (x, scale, bias)))
    wanted_y, *wanted = reference(x.astype(np.float64), g, scale, bias, eps)
    np.testing.assert_allclose(np.asarray(y, np.float64), wanted_y, rtol=2**-8, atol=1e-3)
    for found, right in zip(pull(jnp.asarray(g, jnp.bfloat16)), wanted, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, right, atol=2e-3 if mean > 100 else 4e-6)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_norm_in_bfloat16_has_the_parameters_and_the_values_of_one_in_float32(use_bias):
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (2, 3, 32))
    narrow = layer_norm(1e-5, NARROW, use_bias=use_bias)
    wide = layer_norm(1e-5, jnp.float32, use_bias=use_bias)
    params = wide.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, narrow.init(jax.random.key(1), x), params)
    params = jax.tree.map(lambda p: p + 0.5 * jnp.arange(32) / 32, params)
    for inputs in (x, x.astype(jnp.bfloat16)):
        y = narrow.apply(params, inputs)
        assert y.dtype == jnp.bfloat16
        wanted = wide.apply(params, inputs.astype(jnp.float32))
        np.testing.assert_allclose(y.astype(jnp.float32), wanted, rtol=2**-8, atol=1e-6)


def test_of_all_tokens_the_features_alone_wait_for_the_gradient():
    x, factors = jax.ShapeDtypeStruct((4, 32), jnp.bfloat16), jax.ShapeDtypeStruct((32,), "float32")
    pull = jax.eval_shape(
        lambda *args: jax.vjp(lambda *args: normalised(*args, 1e-5), *args)[1], x, factors, factors
    )
    saved = sorted((x.shape, str(x.dtype)) for x in jax.tree.leaves(pull) if x.shape != (32,))
    assert saved == [((4, 32), "bfloat16")]
