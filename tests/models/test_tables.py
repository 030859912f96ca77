"""Embedding tables: their rows, and sums of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.models.layers import table


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_added_in_float32(dtype):
    """A table that is kept in bfloat16 rounds its values, and no sum of them."""
    rng = np.random.default_rng(0)
    module, ids = table(5, 8, 0.02), jnp.arange(5)
    tables = [jnp.asarray(rng.normal(size=(5, 8)), dtype) for _ in range(3)]
    found = sum(module.apply({"params": {"embedding": values}}, ids) for values in tables)
    expected = sum(np.asarray(values, np.float64) for values in tables)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
