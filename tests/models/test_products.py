"""Products in bfloat16 against float64 products of the rounded operands, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.models import products

SHAPES = [
    ((1, 1), (1, 1)),
    ((5, 1), (1, 7)),
    ((32, 48), (48, 96)),
    ((32, 96), (96, 48)),
    ((2, 7, 48), (48, 4)),
    ((2, 3, 1, 16), (2, 3, 16, 9)),
    ((2, 3, 9, 16), (2, 3, 16, 9)),
    ((2, 3, 1, 1), (2, 3, 1, 5)),
    ((0, 4), (4, 3)),
]


def rounded(x):
    return np.asarray(jnp.asarray(x).astype(jnp.bfloat16), np.float64)


@pytest.mark.parametrize("kinds", [(jnp.float32, jnp.float32), (jnp.float32, jnp.bfloat16)])
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_products_and_gradients(left, right, kinds):
    rng = np.random.default_rng(0)
    a, b = (
        jnp.asarray(rng.standard_normal(s), kind)
        for s, kind in zip((left, right), kinds, strict=True)
    )
    c = rng.standard_normal((*left[:-1], right[-1])).astype(np.float32)

    def weighted(a, b):
        y = products.product(a, b, jnp.bfloat16)
        return jnp.sum(y * c), y

    (_, y), (grad_a, grad_b) = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))(
        a, b
    )
    assert y.dtype == products.activation_dtype(jnp.bfloat16)
    assert (grad_a.dtype, grad_b.dtype) == kinds
    np.testing.assert_allclose(y, rounded(a) @ rounded(b), rtol=2e-2, atol=2e-2)
    wanted_b = np.swapaxes(rounded(a), -1, -2) @ rounded(c)
    if b.ndim == 2:
        wanted_b = wanted_b.reshape(-1, *b.shape).sum(0)
    np.testing.assert_allclose(grad_a, rounded(c) @ np.swapaxes(rounded(b), -1, -2), atol=0.1)
    np.testing.assert_allclose(np.asarray(grad_b, np.float32), wanted_b, rtol=2e-2, atol=0.1)


def test_float32_products_are_those_of_jax():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((2, 5, 8), (8, 3)))
    np.testing.assert_array_equal(products.product(a, b, jnp.float32), jnp.matmul(a, b))


def test_on_a_cpu_no_product_of_bfloat16_is_computed_in_float32():
    """The compiled program: forward, and both gradients."""
    if jax.default_backend() != "cpu":
        pytest.skip("other devices have their own kernels")
    a, b = jnp.ones((256, 384)), jnp.ones((384, 128))
    grad = jax.jit(jax.grad(lambda a, b: products.product(a, b, jnp.bfloat16).sum(), (0, 1)))
    products_of = [
        line for line in grad.lower(a, b).as_text().splitlines() if "stablehlo.dot_general" in line
    ]
    assert len(products_of) == 2
    for line in products_of:
        assert "(tensor<" in line
        operands = line[line.rindex(": (") :]
        assert operands.count("xbf16>") == 2, line
