"""Few kernels for all leaves of a tree: the numbers are those of one leaf after the other."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core import trees
from jaxtune.core.types import Mean
from jaxtune.training.few_kernels import clip_by_norm_of_all, norm_of_all, reading_together
from jaxtune.training.step import make_sums


def apply_fn(params, batch, *, key, train):
    del key, train
    x = batch["x"].astype(jnp.bfloat16)
    for layer in params.values():
        x = x @ layer["kernel"].astype(jnp.bfloat16) + layer["bias"].astype(jnp.bfloat16)
    return x.astype(jnp.float32)


def loss_fn(outputs, batch):
    return Mean(jnp.sum(outputs**2), jnp.float32(batch["x"].shape[0]))


def test_no_number_changes_and_matrices_alone_are_multiplied():
    keys = jax.random.split(jax.random.key(0), 3)
    kernels = [jax.random.normal(key, (4, 4)) for key in keys]
    kernels[2] = kernels[2].astype(jnp.bfloat16)
    layers = {
        str(i): {"kernel": kernel, "bias": jnp.arange(4.0)} for i, kernel in enumerate(kernels)
    }
    params, frozen = trees.split(layers, {n: dict.fromkeys(x, n == "1") for n, x in layers.items()})
    batch = {"x": jax.random.normal(jax.random.key(1), (5, 4))}
    sums = make_sums(apply_fn, loss_fn)
    arguments = params, frozen, batch, jax.random.key(2)
    wanted, found = (jax.jit(one)(*arguments) for one in (sums, reading_together(sums)))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    text = str(jax.make_jaxpr(reading_together(sums))(*arguments))
    plain = str(jax.make_jaxpr(sums)(*arguments))
    assert text.count("optimization_barrier") == 1
    assert text.count("f32[4,4] = mul") - plain.count("f32[4,4] = mul") == 2  # not the bfloat16 one


@pytest.mark.parametrize("largest", [1.0, 1e3])
def test_the_norm_of_all_and_what_clips_by_it_are_those_of_optax(largest):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(3, 5), (7,), (), (2, 3, 4)]
    tree = {
        str(i): 9 * jax.random.normal(k, s)
        for i, (k, s) in enumerate(zip(keys, shapes, strict=True))
    }
    np.testing.assert_allclose(norm_of_all(tree), optax.tree.norm(tree), rtol=1e-6)
    found, state = clip_by_norm_of_all(largest).update(tree, optax.EmptyState())
    plain = optax.clip_by_global_norm(largest)
    wanted, _ = plain.update(tree, plain.init(tree))
    assert jax.tree.structure(state) == jax.tree.structure(plain.init(tree))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, wanted)


def test_all_updates_read_the_norm_as_an_array():
    clip = clip_by_norm_of_all(1.0)
    tree = [jnp.ones(3), jnp.ones((2, 3))]
    text = str(jax.make_jaxpr(lambda tree: clip.update(tree, optax.EmptyState())[0])(tree))
    assert len(re.findall(r":f32\[2\] = optimization_barrier", text)) == 1


def test_the_norm_of_bfloat16_is_summed_in_float32():
    tree = [jnp.ones((1, 1), jnp.bfloat16)] * 1000
    np.testing.assert_allclose(norm_of_all(tree), 1000**0.5, rtol=1e-6)
