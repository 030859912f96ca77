from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.device import Device
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.layers import layer_norm
from jaxtune.models.norm import standardised

NARROW = arithmetic(jnp.bfloat16, Device("gpu", 9.0))


def reference(x, g, eps):
    """In float64: what it gives, and its gradient by the equations of a mean and a variance."""
    n = x.shape[-1]
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    to_variance = (g * centred).sum(-1, keepdims=True) * -0.5 / deviation**3
    to_x = g / deviation + to_variance * 2 * centred / n
    return centred / deviation, to_x - (g / deviation).sum(-1, keepdims=True) / n


@pytest.mark.parametrize(("mean", "eps"), [(0.0, 1e-12), (0.5, 0.3), (3000.0, 1e-5)])
def test_value_and_gradient_are_the_equations(mean, eps):
    rng = np.random.default_rng(0)
    x, g = rng.normal(mean, 2.0, (3, 5, 16)).astype(np.float32), rng.normal(size=(3, 5, 16))
    y, pull = jax.vjp(lambda x: standardised(x, eps), jnp.asarray(x))
    wanted_y, wanted_g = reference(x.astype(np.float64), g, eps)
    np.testing.assert_allclose(y, wanted_y, atol=2e-4 if mean > 100 else 2e-6)
    (found,) = pull(jnp.asarray(g, jnp.float32))
    np.testing.assert_allclose(found, wanted_g, atol=2e-4 if mean > 100 else 2e-6)


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


def test_all_that_waits_for_the_gradient_is_bfloat16():
    narrow, x = partial(standardised, eps=1e-5), jax.ShapeDtypeStruct((4, 32), jnp.bfloat16)
    (saved,) = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(narrow, x)[1], x))
    assert (saved.dtype, saved.shape) == (jnp.bfloat16, (4, 32))
