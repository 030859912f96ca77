"""Attention block by block, and in a band, against all scores at once: outputs and gradients."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest
from rows_of_texts import LENGTH, texts
from torch_models import IMAGES

from jaxtune.core.counting import counting
from jaxtune.core.device import this_device
from jaxtune.core.dropout import Drop, noise_ids_of
from jaxtune.models import attention, attention_path, products
from jaxtune.models.attention import attention_bias
from jaxtune.models.attention_path import choose_path
from jaxtune.models.banded import banded_attention
from jaxtune.models.blockwise import Blocks, blockwise_attention, cut, needed_blocks
from jaxtune.models.registry import FAMILIES, make_apply, parameter_shapes
from jaxtune.models.sight import sight_of

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
WINDOW = 7
QUICK = {"xla_backend_optimization_level": 0}


def as_dense(query, key, value, sight, dtype, drop):
    return products.dense_attention(query, key, value, sight.bias(), dtype, drop)


def in_blocks(queries, keys, rows=1):
    return partial(blockwise_attention, blocks=Blocks(queries, keys, rows))


PATHS = {
    "blocks": (in_blocks(16, 24), (None, WINDOW)),
    "rows together": (in_blocks(24, 16, 2), (None, WINDOW)),
    "one block": (in_blocks(80, 80), (None,)),
    "band": (partial(banded_attention, size=16), (WINDOW,)),
    "narrow band": (partial(banded_attention, size=WINDOW), (WINDOW,)),
}
KINDS = [
    (path, layout, view, window, rate, free)
    for path in PATHS
    for layout in ("packed", "padded", "left", "whole")
    for view in ("both ways", "causal")
    for window in ("far", "near")
    for rate in ("no dropout", "dropout")
    for free in ("no prefix", "prefix")
    if (WINDOW if window == "near" else None) in PATHS[path][1]
]
DEFAULT = {
    ("blocks", "packed", "both ways", "near", "dropout", "prefix"),
    ("blocks", "left", "both ways", "far", "no dropout", "no prefix"),
    ("rows together", "packed", "causal", "far", "dropout", "no prefix"),
    ("one block", "padded", "causal", "far", "no dropout", "prefix"),
    ("band", "packed", "causal", "near", "dropout", "prefix"),
    ("narrow band", "whole", "both ways", "near", "no dropout", "no prefix"),
}


def check_path(path, layout, view, window, rate, free, dtype=jnp.float32, atol=1e-5):
    batch = {name: jnp.asarray(x) for name, x in texts(layout).items()}
    sight = sight_of(batch, view == "causal", WINDOW if window == "near" else None)
    rng, extra = np.random.default_rng(1), 3 if free == "prefix" else 0
    shapes = [(2, LENGTH + n, 2, 8) for n in (0, extra, extra, 0)]
    query, key, value, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    if extra:
        sight = sight.behind(extra)
    ids = noise_ids_of(jnp.arange(2)[:, None], jnp.arange(LENGTH + extra))
    drop = Drop(0.2, jax.random.key(0), ids[:, :LENGTH], ids) if rate == "dropout" else None
    # What fills a row, or stands before the first token that a causal one sees, is read by nobody.
    read = (sight.bias() == 0).any(-1)[:, 0] & (sight.asking > 0)
    weight = weight * read[..., None, None]

    def run(attend, *parts):
        y, back = jax.vjp(lambda *parts: attend(*parts, sight, dtype, drop) * (weight != 0), *parts)
        return (y, *back(weight))

    found, wanted = (
        jax.jit(partial(run, attend), compiler_options=QUICK)(query, key, value)
        for attend in (PATHS[path][0], as_dense)
    )
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize(
    ("path", "layout", "view", "window", "rate", "free"), mark_rest(KINDS, DEFAULT)
)
def test_every_path_gives_what_all_scores_at_once_give(path, layout, view, window, rate, free):
    check_path(path, layout, view, window, rate, free)


@pytest.mark.parametrize("path", mark_rest(["blocks", "band"], ["blocks"]))
def test_products_in_bfloat16_stay_near_those_of_all_scores(path):
    case = ("packed", "both ways", "near", "dropout", "no prefix")
    check_path(path, *case, jnp.bfloat16, 0.1)


# --- Whole models ------------------------------------------------------------------------------

MODELS = [
    (family, layout)
    for family in FAMILIES
    if family not in IMAGES
    for layout in ("packed", "padded")
]
FEWER = {("modernbert", "packed")}


def make_model(family, length=128):
    part = FAMILIES[family]
    head = "sequence" if "sequence" in part.heads else "image"
    hf_config = json.loads((GOLDEN / f"{family}-{head}" / "config.json").read_text())
    config = part.config_from_hf(hf_config, "config.json")
    layers = 3 if family == "modernbert" else 2  # the last one has few queries
    for name, value in {
        **dict.fromkeys(("max_position_embeddings", "n_positions"), length),
        **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), layers),
    }.items():
        if hasattr(config, name):
            config = dataclasses.replace(config, **{name: value})
    module = part.make_module(head, config, 3, jnp.float32)
    rng = np.random.default_rng(2)
    shapes = parameter_shapes(module)
    return make_apply(module), jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes
    )


def gradients_of(apply_fn):
    """(parameters, batch) -> gradients of a sum of the outputs, with dropout; and the outputs."""

    def loss(params, batch):
        y = apply_fn(params, batch, key=jax.random.key(1), train=True)
        weight = batch.get("weight", jnp.ones(y.shape[:-1]))
        return jnp.sum(jnp.sin(3 * y) * weight[..., None]), y * weight[..., None]

    return jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)


def check_model(monkeypatch, family, layout):
    apply_fn, params = make_model(family)
    if family in IMAGES:
        config_batch = {"pixel_values": np.random.default_rng(0).normal(size=layout)}
        batch = {name: jnp.asarray(x, jnp.float32) for name, x in config_batch.items()}
    else:
        batch = {name: jnp.asarray(x) for name, x in texts(layout).items()}
    wanted = gradients_of(apply_fn)(params, batch)
    monkeypatch.setattr(attention_path, "LONG", 2)
    monkeypatch.setattr(attention, "_blocks", lambda *_: Blocks(16, 24, 1))
    monkeypatch.setattr(attention, "band", lambda window: max(window, 8))
    monkeypatch.setattr(attention_path, "band", lambda window: max(window, 8))
    found = gradients_of(apply_fn)(params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


@pytest.mark.parametrize(("family", "layout"), mark_rest(MODELS, FEWER))
def test_models_give_the_same_whatever_the_path(monkeypatch, family, layout):
    check_model(monkeypatch, family, layout)


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", ["vit", "dinov2", "dinov2_with_registers"])
def test_images_are_attended_to_block_by_block_alike(monkeypatch, family):
    side = json.loads((GOLDEN / f"{family}-image" / "config.json").read_text())["image_size"]
    check_model(monkeypatch, family, (2, side, side, 3))


# --- What is chosen, and what is computed --------------------------------------------------------


def test_the_path_follows_from_the_shape():
    with counting():
        assert choose_path(8192, 8192) == "xla"
    assert choose_path(511, 511) == choose_path(1, 8192) == choose_path(30, 8192) == "xla"
    assert choose_path(512, 512) == choose_path(8192, 8192) == "blockwise"
    assert choose_path(512, 512, 64) == "banded"
    assert choose_path(512, 512, 200) == "blockwise"
    (length,) = jax.export.symbolic_shape("length")
    assert choose_path(length, length) == "xla"


def test_a_short_row_has_a_bias_and_a_long_one_none():
    short, long = texts("packed", 2, 511), texts("packed", 2, 512)
    assert attention_bias(short, window=3).shape == (2, 1, 511, 511)
    sizes = [leaf.size for leaf in jax.tree.leaves(attention_bias(long, window=3))]
    assert max(sizes) == 2 * 512


def test_positions_of_ones_own_are_not_taken_for_places():
    """In a batch that brings its positions, what is near may lie far off."""
    batch = texts("whole", 1, 512)
    assert attention_bias(batch, window=3).in_order
    assert not attention_bias(batch | {"position_ids": batch["input_ids"]}, window=3).in_order


def count(layout_batch, blocks, causal=False, window=None):
    batch = {name: jnp.asarray(x) for name, x in layout_batch.items()}
    sides = cut(sight_of(batch, causal, window), blocks)
    return np.asarray(needed_blocks(sides, causal, window, len(batch["input_ids"]) // blocks.rows))


@pytest.mark.parametrize("mean", [300, 600, 1500])
def test_a_packed_row_costs_about_what_its_texts_cost_alone(mean):
    for seed in range(4):
        batch = texts("packed", 1, 8192, mean, seed)
        sizes = np.unique(batch["segment_ids"][0], return_counts=True)[1][1:]
        seen = attention_bias(batch)
        query = jnp.zeros((1, 8192, 1, 1))
        blocks = attention._blocks(query, query, seen, this_device())
        alone = (-(-sizes // blocks.queries) * -(-sizes // blocks.keys)).sum()
        assert count(batch, blocks).sum() <= 1.3 * alone


def test_blocks_that_are_not_seen_are_left_out():
    whole = texts("whole", 1, 80)
    blocks = Blocks(16, 16, 1)
    assert count(whole, blocks).all()
    np.testing.assert_array_equal(count(whole, blocks, causal=True)[0], np.tri(5))
    band = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) <= 1
    np.testing.assert_array_equal(count(whole, blocks, window=16)[0], band)
    padded = texts("padded", 2, 96)  # a third of the first row is padding
    needed = count(padded, blocks)
    np.testing.assert_array_equal(needed[0].sum(-1), np.full(6, 4))
    assert needed[1].all()
    assert count(padded, Blocks(16, 16, 2)).shape == (1, 6, 6)


@pytest.mark.parametrize("family", mark_rest(("bert", "modernbert"), ("modernbert",)))
def test_temporaries_of_a_step_grow_with_tokens_and_not_with_their_square(family):
    apply_fn, params = make_model(family, 2048)
    sizes = []
    for length in (1024, 2048):
        batch = texts("packed", 1, length, length // 6)
        program = gradients_of(apply_fn).lower(params, batch).compile()
        sizes.append(program.memory_analysis().temp_size_in_bytes)
    assert sizes[1] <= 2.3 * sizes[0]
