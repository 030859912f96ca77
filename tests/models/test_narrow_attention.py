"""Attention in bfloat16 with its gradient written out, against JAX's gradient in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.dropout import Drop, noise_ids_of
from jaxtune.models.narrow_attention import narrow_attention
from jaxtune.models.products import dense_attention

B, Q, S, H, K = 2, 6, 9, 3, 8


def drop_of(rate):
    def ids(n):
        return noise_ids_of(jnp.arange(B)[:, None], jnp.arange(n))

    return Drop(rate, jax.random.key(3), ids(Q), ids(S)) if rate else None


def inputs(bias_shape):
    """Queries, keys and values that bfloat16 has exactly; of each row some keys are not seen."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = (B, Q, H, K), (B, S, H, K), (B, S, H, K)
    parts = [jax.random.normal(key, x) for key, x in zip(keys, shapes, strict=False)]
    parts = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in parts]
    seen = jax.random.bernoulli(keys[3], 0.7, bias_shape).at[..., 0].set(True)
    bias = jnp.where(seen, jax.random.normal(keys[4], bias_shape), jnp.finfo(jnp.float32).min)
    return (*parts, bias)


def value_and_gradients(attend, arguments):
    weights = jax.random.normal(jax.random.key(9), (B, Q, H, K))

    def loss(*arguments):
        y = attend(*arguments).astype(jnp.float32)
        return jnp.sum(y * weights), y

    run = jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)
    (_, y), grads = jax.jit(run)(*arguments)
    return [np.asarray(x, np.float64) for x in (y, *grads)]


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("bias_shape", [(B, 1, 1, S), (B, 1, Q, S), (1, H, Q, S), (B, H, Q, S)])
def test_value_and_gradients_are_those_of_float32(rate, bias_shape):
    drop, arguments = drop_of(rate), inputs(bias_shape)
    narrow = [*(x.astype(jnp.bfloat16) for x in arguments[:3]), arguments[3]]
    wanted = value_and_gradients(
        lambda *parts: dense_attention(*parts, jnp.float32, drop), arguments
    )
    found = value_and_gradients(lambda *parts: narrow_attention(*parts, drop), narrow)
    for x, y in zip(found, wanted, strict=True):
        assert np.linalg.norm(x - y) < 0.01 * np.linalg.norm(y)


def test_probabilities_alone_are_kept_of_all_pairs():
    *parts, bias = (jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) for x in inputs((B, 1, 1, S)))
    drop = jax.eval_shape(lambda: drop_of(0.3))
    bias = jax.ShapeDtypeStruct(bias.shape, jnp.float32)
    pull = jax.eval_shape(
        lambda *args: jax.vjp(lambda *parts: narrow_attention(*parts, *args[3:]), *args[:3])[1],
        *(*parts, bias, drop),
    )
    kept = [x for x in jax.tree.leaves(pull) if x.shape == (B, H, Q, S)]
    assert [x.dtype for x in kept] == [jnp.bfloat16]
