"""Products in bfloat16 against float64 products of the rounded operands, gradients too."""

import contextlib
import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.device import Device
from jaxtune.models import attention, products
from jaxtune.models.arithmetic import arithmetic
from jaxtune.run.attention_rows import attention_rows
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare

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


@pytest.mark.parametrize("features", [(3,), (2, 5)])
def test_an_affine_map_in_bfloat16_is_rounded_once_and_the_gradient_of_its_bias_summed_in_float32(
    features,
):
    """Against float64 numbers, for a device whose products give bfloat16."""
    rng = np.random.default_rng(0)
    x, kernel, bias = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in ((4, 250, 8), (8, *features), features)
    )
    g = jnp.asarray(rng.random((4, 250, *features)), jnp.bfloat16)
    dtype = arithmetic(jnp.bfloat16, Device("gpu"))
    y, pull = jax.vjp(lambda *args: products.affine(*args, dtype), x, kernel, bias)
    to_x, to_kernel, to_bias = pull(g)
    exact, wide = (np.asarray(v.astype(jnp.bfloat16), np.float64) for v in (x, kernel))
    assert y.dtype == jnp.bfloat16
    assert {v.dtype for v in (to_x, to_kernel, to_bias)} == {jnp.dtype("float32")}
    wanted = np.tensordot(exact, wide, 1) + np.asarray(bias, np.float64)
    np.testing.assert_allclose(np.asarray(y, np.float64), wanted, rtol=2**-8 * 1.01, atol=1e-6)
    given = np.asarray(g, np.float64)
    axes = len(features)
    np.testing.assert_allclose(to_bias, given.sum((0, 1)), rtol=1e-6)
    wanted_x = np.tensordot(given, wide, (range(2, 2 + axes), range(1, 1 + axes)))
    np.testing.assert_allclose(to_x, wanted_x, rtol=2**-8 * 1.01, atol=1e-6)
    wanted_kernel = np.tensordot(exact, given, ((0, 1), (0, 1)))
    np.testing.assert_allclose(to_kernel, wanted_kernel, rtol=2**-8 * 1.01, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_sums_are_rounded_by_the_product_and_before_they_are_sent(shared):
    """The steps of an affine map: its products, and what stays apart for a compiler."""
    x, kernel = (jnp.ones(shape, jnp.bfloat16) for shape in ((3, 8), (8, 4)))
    mesh = jax.sharding.AbstractMesh((2,), ("tensor",)) if shared else None
    with jax.sharding.use_abstract_mesh(mesh) if mesh else contextlib.nullcontext():
        text = str(jax.make_jaxpr(products.narrow_affine)(x, kernel, jnp.ones(4)))
    sums, apart = ("bf16", 0) if shared else ("f32", 1)
    assert re.search(rf":{sums}\[3,4\](?:\{{[^}}]*\}})? = dot_general", text), text
    assert len(re.findall(r":bf16\[3,4\] = optimization_barrier", text)) == apart


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


@pytest.mark.parametrize("rows", [(1, 1), (2, 1), (2, 5)])
def test_a_fused_kernel_gives_what_the_three_steps_give(rows):
    """The same call of JAX's on its own implementation, which every device has."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, n, 3, 8)), jnp.float32) for n in (5, 7, 7))
    seen = rng.random((rows[0], 1, rows[1], 7)) < 0.7
    seen[..., 0] = True
    bias = jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)
    found = products.fused_attention(q, k, v, bias, jnp.float32, "xla")
    probs = jax.nn.softmax(products.attention_scores(q / 8**0.5, k, jnp.float32) + bias)
    wanted = products.attention_values(probs, v, jnp.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "dtype", "head_size", "rate", "kernel"),
    [
        ("gpu", jnp.bfloat16, 64, 0.0, "cudnn"),
        ("gpu", jnp.bfloat16, 64, 0.1, "xla"),
        ("gpu", jnp.float32, 64, 0.0, "xla"),
        ("gpu", jnp.bfloat16, 12, 0.0, "xla"),
        ("gpu", jnp.bfloat16, 512, 0.0, "xla"),
        ("cpu", jnp.bfloat16, 64, 0.0, "xla"),
    ],
)
def test_the_kernel_is_fused_where_it_can_be(backend, dtype, head_size, rate, kernel):
    chosen = arithmetic(dtype, Device(backend, 9.0))
    assert products.attention_kernel(chosen, head_size, rate) == kernel


@pytest.mark.parametrize(("asking", "is_fused"), [(1, False), (2, True), (3, False), (8, True)])
def test_an_odd_number_of_queries_is_not_fused(monkeypatch, asking, is_fused):
    """JAX has no gradient of these with a mask."""
    calls = []

    def fused(query, *rest):
        calls.append(query.shape)
        return query

    monkeypatch.setattr(attention, "attention_kernel", lambda *_: "cudnn")
    monkeypatch.setattr(attention, "fused_attention", fused)
    module = attention.SelfAttention(2, 0.0, 0.02, jnp.float32)
    x, bias = jnp.ones((3, 8, 16)), jnp.zeros((3, 1, 1, 8))
    places = jnp.zeros((3, asking), jnp.int32)
    found, _ = module.init_with_output(jax.random.key(0), x, bias, None, places=places)
    assert found.shape == (3, asking, 16)
    assert bool(calls) == is_fused


def test_an_older_card_has_no_fused_kernel():
    assert products.attention_kernel(arithmetic(jnp.bfloat16, Device("gpu", 7.5)), 64, 0.0) == "xla"


def test_a_program_is_made_for_the_device_that_is_given():
    """On whatever this is: elsewhere than on a CPU, bfloat16 products give bfloat16."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 8), (8, 2))]
    for platform, wanted in (("cpu", jnp.float32), ("gpu", jnp.bfloat16), ("tpu", jnp.bfloat16)):
        chosen = arithmetic(jnp.bfloat16, Device(platform))
        y = jax.eval_shape(lambda a, b, chosen=chosen: products.product(a, b, chosen), *shapes)
        assert y.dtype == wanted == products.activation_dtype(chosen)


def test_what_is_given_no_device_is_for_this_one(monkeypatch):
    card = types.SimpleNamespace(compute_capability="8.6")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [card])
    assert arithmetic(jnp.bfloat16).device == Device("gpu", 8.6)
    assert products.activation_dtype(jnp.bfloat16) == jnp.bfloat16
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert arithmetic(jnp.float32).device == Device("tpu")


def test_the_summary_names_the_kernels(monkeypatch, tiny_families, tiny_settings):
    settings = tiny_settings("classification", "full", tiny_families["bert"])
    settings = dataclasses.replace(
        settings, model=dataclasses.replace(settings.model, from_scratch=True)
    )
    assert attention_rows(prepare(settings, Report())) == []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    run = prepare(settings, Report())
    assert attention_rows(run) == [("attention", "xla in training, xla in evaluation")]
