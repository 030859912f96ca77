"""Activations in bfloat16, with their gradients, against equations in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.models.activations import ACTIVATIONS

X = np.concatenate([np.linspace(-6, 6, 96), [-40.0, -1e-3, 1e-3, 40.0]])


def logistic(x):
    return 1 / (1 + np.exp(-x))


def normal(x):
    """The distribution function of N(0, 1)."""
    return 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


EQUATIONS = {
    "gelu": lambda x: x * normal(x),
    "gelu_new": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * logistic(x),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_gradient_are_rounded_once(name):
    x = jnp.asarray(X, jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    y, pull = jax.vjp(ACTIVATIONS[name], x)
    (slope,) = pull(jnp.ones_like(x))
    assert y.dtype == slope.dtype == jnp.bfloat16
    step = 1e-6
    wanted = (EQUATIONS[name](exact + step) - EQUATIONS[name](exact - step)) / (2 * step)
    once = {"rtol": 2**-8 * 1.01, "atol": 1e-5}
    np.testing.assert_allclose(np.asarray(y, np.float64), EQUATIONS[name](exact), **once)
    np.testing.assert_allclose(np.asarray(slope, np.float64), wanted, **once)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_their_input_alone_waits_for_the_gradient(name):
    x = jax.ShapeDtypeStruct((4, 32), jnp.bfloat16)
    (saved,) = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(ACTIVATIONS[name], x)[1], x))
    assert (saved.dtype, saved.shape) == (jnp.bfloat16, (4, 32))
