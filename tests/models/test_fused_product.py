"""The kernels of a feed-forward block, interpreted, against float64 equations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.device import Device
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.families.bert import BERT
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.fused_call import Lowering
from jaxtune.models.fused_product import Widening, feed_forward, gelu_and_slope, has_tiles
from jaxtune.models.registry import init_params, make_apply
from jaxtune.tuning.lora import Lora

INTERPRETED = Lowering("triton", is_interpreted=True)
below = np.vectorize(lambda x: 0.5 * math.erfc(-x / 2**0.5))


def bell(x):
    return np.exp(-0.5 * x**2) / (2 * math.pi) ** 0.5


def rounded(x):
    return np.asarray(x.astype(jnp.bfloat16), np.float64)


def arrays(n, k, f, d):
    keys = jax.random.split(jax.random.key(0), 5)
    x, g = (
        jax.random.normal(key, (n // 8, 8, size))
        for key, size in zip(keys[:2], (k, d), strict=True)
    )
    first = jax.random.normal(keys[2], (k, f)) / k**0.5
    second = jax.random.normal(keys[3], (f, d)) / f**0.5
    return x, first, 0.5 * jax.random.normal(keys[4], (f,)), second, g


def test_gelu_and_its_slope():
    x = np.concatenate([np.linspace(-9, 9, 2001), [-1e-4, 0.0, 1e-4, -50.0, 50.0]])
    value, slope = gelu_and_slope(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, x * below(x), atol=4e-7, rtol=3e-7)
    np.testing.assert_allclose(slope, below(x) + x * bell(x), atol=4e-7)


@pytest.mark.parametrize("sizes", [(64, 32, 128, 32), (192, 64, 128, 96), (96, 96, 256, 64)])
def test_value_and_gradients_are_those_of_the_equations(sizes):
    x, first, bias, second, g = arrays(*sizes)

    def run(x, first, bias, second):
        return feed_forward(Widening(x, first, bias), second, INTERPRETED)

    y, pull = jax.vjp(jax.jit(run), x, first, bias, second)
    found = (y, *pull(g.astype(y.dtype)))
    x, first, second, g = (rounded(v) for v in (x, first, second, g))
    wide = x @ first + np.asarray(bias, np.float64)
    activated = wide * below(wide)
    to_wide = (g @ second.T) * (below(wide) + wide * bell(wide))
    wanted = (
        activated @ second,
        to_wide @ first.T,
        np.einsum("abk,abf->kf", x, to_wide),
        to_wide.sum((0, 1)),
        np.einsum("abf,abd->fd", activated, g),
    )
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(np.asarray(a, np.float64) - b) < 0.006 * np.linalg.norm(b)


def test_what_is_activated_alone_waits_for_the_gradient():
    x, first, bias, second, _ = arrays(64, 32, 128, 32)

    def saved(*args):
        return jax.vjp(
            lambda x, *rest: feed_forward(Widening(x, *rest[:2]), rest[2], INTERPRETED), *args
        )[1]

    shapes = jax.tree.leaves(jax.eval_shape(saved, x, first, bias, second))
    assert [leaf.shape for leaf in shapes if leaf.size >= 64 * 128] == [(64, 128)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((4096, 768, 3072), True),
        ((1440, 384, 1536), True),
        ((1456, 384, 1536), False),
        ((32, 32, 128), True),
        ((64, 40, 128), False),
        ((64, 32, 192), False),
    ],
)
def test_it_is_for_sizes_that_have_tiles(sizes, expected):
    assert has_tiles(*sizes) == expected


@pytest.mark.parametrize(
    ("changes", "target", "expected"),
    [
        ({}, None, 2),
        ({"hidden_act": "relu"}, None, 0),
        ({}, "layer/1/intermediate/dense/kernel", 1),
        ({}, "layer/0/output/dense/kernel", 1),
    ],
)
def test_layers_take_them_unless_something_stands_beside_their_parameters(
    changes, target, expected
):
    fields = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128} | changes
    config = BertConfig(vocab_size=40, num_hidden_layers=2, max_position_embeddings=64, **fields)
    dtype = arithmetic(jnp.bfloat16, Device("gpu", 9.0), "fused")
    module = BERT.make_module("token", config, 3, dtype)
    params = jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
    apply_fn = make_apply(module)
    if target is not None:
        strategy = Lora(rank=2, alpha=4.0, targets=(target,), head=None)
        params = jax.eval_shape(lambda p: strategy.extend(p, jax.random.key(3)), params)
        apply_fn = strategy.adapt(apply_fn)
    batch = {name: jnp.ones((2, 64), jnp.int32) for name in ("input_ids", "attention_mask")}

    def run(params):
        return apply_fn(params, batch, key=jax.random.key(1), train=True).sum()

    text = str(jax.make_jaxpr(jax.grad(run))(params))
    assert text.count("name=_product_and_gelu") == expected
    assert text.count("name=_product_by_slope") == expected
