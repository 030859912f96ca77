"""What only a GPU shows; skipped without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core import dropout
from jaxtune.models import products
from jaxtune.models.fused import fused_rows
from jaxtune.models.fused_call import Lowering
from jaxtune.models.sight import Sight

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")


def attention(q, k, v, bias):
    """Written out, in float32."""
    with jax.default_matmul_precision("highest"):
        scores = products.attention_scores(q / q.shape[-1] ** 0.5, k, jnp.float32) + bias
        return products.attention_values(jax.nn.softmax(scores), v, jnp.float32)


@pytest.mark.parametrize(("asking", "keys"), [(128, 128), (8, 104), (2, 128), (264, 264)])
@pytest.mark.parametrize("rows_of_bias", ["each", "one"])
def test_cudnn_attends_as_written_out_and_so_does_its_gradient(asking, keys, rows_of_bias):
    if products.attention_kernel(jnp.bfloat16, 32, 0.0) != "cudnn":
        pytest.skip("an older card")
    rng = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(rng.standard_normal((3, n, 4, 32)), jnp.bfloat16).astype(jnp.float32)
        for n in (asking, keys, keys)
    )
    seen = rng.random((3, 1, asking if rows_of_bias == "each" else 1, keys)) < 0.5
    seen[..., 0] = True
    bias = jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)
    weights = jnp.asarray(rng.standard_normal(q.shape), jnp.float32)

    def fused(q, k, v):
        found = products.fused_attention(q, k, v, bias, jnp.bfloat16).astype(jnp.float32)
        return (found * weights).sum(), found

    def plain(q, k, v):
        found = attention(q, k, v, bias)
        return (found * weights).sum(), found

    found = jax.jit(jax.grad(fused, (0, 1, 2), has_aux=True))(q, k, v)
    wanted = jax.jit(jax.grad(plain, (0, 1, 2), has_aux=True))(q, k, v)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.linalg.norm(a - b) < 1e-2 * np.linalg.norm(b)


def test_masks_of_dropout_are_those_of_a_cpu():
    def mask():
        tokens = dropout.noise_ids_of(jnp.arange(7)[:, None], jnp.arange(5))
        columns = jnp.arange(300, dtype=jnp.uint32)
        return dropout.keep_mask(jax.random.key(3), 0.1, tokens[..., None], columns)

    found = mask()
    with jax.default_device(jax.devices("cpu")[0]):
        wanted = mask()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("features", [32, 64])
@pytest.mark.parametrize("length", [48, 128, 300])
def test_the_fused_kernel_computes_what_its_interpreter_computes(length, features):
    rng = np.random.default_rng(0)
    parts = [
        jnp.asarray(rng.standard_normal((3, length, 4, features)), jnp.float32) for _ in range(4)
    ]
    groups = jnp.broadcast_to(1 + jnp.arange(length) * 4 // length, (3, length))
    sight = Sight(groups, groups, is_packed=True)
    ids = dropout.noise_ids_of(jnp.arange(3)[:, None], jnp.arange(length))
    drop = dropout.Drop(0.1, jax.random.key(0), ids, ids)

    def run(lowering, *parts):
        def attend(*parts):
            return fused_rows(*parts, sight, jnp.bfloat16, drop, lowering)

        y, back = jax.vjp(attend, *parts[:3])
        return (y, *back(parts[3]))

    found = jax.jit(run, static_argnums=0)(Lowering("triton"), *parts)
    with jax.default_device(jax.devices("cpu")[0]):
        on_cpu = jax.device_put(parts, jax.devices("cpu")[0])
        wanted = jax.jit(run, static_argnums=0)(Lowering("triton", is_interpreted=True), *on_cpu)
    for a, b in zip(found, wanted, strict=True):
        assert np.linalg.norm(np.asarray(a) - np.asarray(b)) < 1e-2 * np.linalg.norm(b)
