"""Rows of a table and their gradient, against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.device import Device
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.layers import table
from jaxtune.models.table_rows import table_rows

IDS = ([[3, 1], [3, 3], [0, 8]], [5], [[8, 8, 8], [0, 0, 0]], [[4, 2], [2, 4]])


@pytest.mark.parametrize("ids", IDS)
def test_the_gradient_is_that_of_a_lookup(ids):
    ids, values = jnp.asarray(ids, jnp.int32), jax.random.normal(jax.random.key(0), (9, 4))
    wanted, pull_wanted = jax.vjp(lambda x: x[ids], values)
    found, pull = jax.vjp(lambda x: table_rows(x, ids), values)
    np.testing.assert_array_equal(found, wanted)
    g = jax.random.normal(jax.random.key(1), wanted.shape)
    np.testing.assert_allclose(pull(g)[0], pull_wanted(g)[0], atol=1e-6)


def scattered(module, count):
    """The shapes that the gradient of a lookup adds rows into."""

    def loss(params, ids):
        return module.apply({"params": params}, ids).sum()

    params = {"embedding": jax.ShapeDtypeStruct((1000, 8), jnp.float32)}
    ids = jax.ShapeDtypeStruct((2, count), jnp.int32)
    text = str(jax.make_jaxpr(jax.grad(loss))(params, ids))
    lines = [line for line in text.splitlines() if "= scatter-add" in line or "scatter_add" in line]
    return [line.split(":")[1].split(" ")[0] for line in lines]


@pytest.mark.parametrize(
    ("platform", "count", "shape"),
    [
        ("gpu", 100, "f32[200,8]"),
        ("tpu", 100, "f32[200,8]"),
        ("gpu", 300, "f32[1000,8]"),  # no fewer rows than the table has
        ("cpu", 100, "f32[1000,8]"),
    ],
)
def test_on_an_accelerator_a_few_rows_are_not_added_into_a_table(platform, count, shape):
    module = table(1000, 8, 0.02, dtype=arithmetic(jnp.bfloat16, Device(platform, 9.0)))
    assert scattered(module, count) == [shape]
