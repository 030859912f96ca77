"""Attention in one kernel a pass, interpreted, against all scores at once."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest
from rows_of_texts import LENGTH, texts
from torch_models import IMAGES

from jaxtune.core import dropout
from jaxtune.core.device import Device
from jaxtune.core.dropout import Drop, noise_ids_of
from jaxtune.core.errors import UserError
from jaxtune.models import products
from jaxtune.models.arithmetic import Arithmetic, arithmetic
from jaxtune.models.attention import SelfAttention, attention_bias
from jaxtune.models.attention_path import choose_path
from jaxtune.models.blockwise import Blocks, cut, needed_blocks
from jaxtune.models.fused import block_size, fused_packed, fused_rows, is_packable
from jaxtune.models.fused_call import Lowering, fits
from jaxtune.models.registry import FAMILIES, make_apply, parameter_shapes
from jaxtune.models.sight import sight_of
from jaxtune.run.attention_choice import check_attention

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
QUICK = {"xla_backend_optimization_level": 0}
WINDOW = 7
LOWERINGS = {name: Lowering(name, is_interpreted=True) for name in ("triton", "mosaic")}
BLOCKS = {"fitted": None, "square": (16, 16), "wide": (16, 32), "tall": (32, 16)}
CASES = [
    (compiler, blocks, layout, view, rate, k, dtype)
    for compiler in LOWERINGS
    for blocks in BLOCKS
    for layout in ("packed", "padded", "left", "whole")
    for view in ("both ways", "causal", "near", "near and causal")
    for rate in (0.0, 0.3)
    for k in (32, 64)
    for dtype in ("float32", "bfloat16")
]
DEFAULT = {
    ("triton", "square", "packed", "near", 0.3, 32, "float32"),
    ("triton", "wide", "padded", "both ways", 0.0, 64, "bfloat16"),
}


def as_dense(query, key, value, sight, dtype, drop):
    return products.dense_attention(query, key, value, sight.bias(), dtype, drop)


def make_case(layout, view, rate, k, queries=LENGTH, free=0):
    """Query, key, value, weight, sight and dropout; some queries alone, and keys that all see."""
    batch = {name: jnp.asarray(x) for name, x in texts(layout).items()}
    sight = sight_of(batch, "causal" in view, WINDOW if "near" in view else None)
    ids = noise_ids_of(jnp.arange(2)[:, None], jnp.arange(LENGTH + free))
    asking = ids[:, free:]
    if queries < LENGTH:
        places = jnp.asarray(np.random.default_rng(3).integers(0, LENGTH, (2, queries)))
        sight, asking = sight.pick(places), jnp.take_along_axis(asking, places, axis=1)
    sight = sight.behind(free) if free else sight
    rng = np.random.default_rng(1)
    shapes = [(2, n, 2, k) for n in (queries, LENGTH + free, LENGTH + free, queries)]
    parts = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    # What fills a row, or stands before the first token that a causal one sees, is read by nobody.
    read = (sight.bias() == 0).any(-1)[:, 0] & (sight.asking > 0)
    parts[-1] *= read[..., None, None]
    drop = Drop(rate, jax.random.key(0), asking, ids) if rate else None
    return parts, sight, drop


def check(attend, parts, sight, drop, dtype, atol):
    *parts, weight = parts

    def run(attend, *parts):
        y, back = jax.vjp(lambda *parts: attend(*parts, sight, dtype, drop) * (weight != 0), *parts)
        return (y, *back(weight.astype(y.dtype)))

    found, wanted = (
        jax.jit(partial(run, one), compiler_options=QUICK)(*parts) for one in (attend, as_dense)
    )
    for one, other in zip(found, wanted, strict=True):
        size = max(1.0, float(jnp.abs(other).max())) if dtype == jnp.bfloat16 else 1.0
        np.testing.assert_allclose(one / size, other / size, atol=atol)


@pytest.mark.parametrize(
    ("compiler", "blocks", "layout", "view", "rate", "k", "dtype"), mark_rest(CASES, DEFAULT)
)
def test_the_kernel_gives_what_all_scores_at_once_give(
    compiler, blocks, layout, view, rate, k, dtype
):
    attend = partial(fused_rows, lowering=LOWERINGS[compiler], blocks=BLOCKS[blocks])
    atol = 1e-5 if dtype == "float32" else 2e-2
    check(attend, *make_case(layout, view, rate, k), jnp.dtype(dtype), atol)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_side_by_side_gives_what_three_arrays_give(rate):
    parts, sight, drop = make_case("packed", "near", rate, 32)
    count = 64  # of tokens, which blocks fill
    *parts, weight = (x[:, :count] for x in parts)
    cut_to = {"asking", "asked", "asking_positions", "positions"}
    sight = dataclasses.replace(sight, **{n: getattr(sight, n)[:, :count] for n in cut_to})
    if drop is not None:
        ids = drop.asking[:, :count]
        drop = dataclasses.replace(drop, asking=ids, noise_ids=ids)
    lowering = LOWERINGS["triton"]
    assert is_packable(lowering, count)
    assert not is_packable(LOWERINGS["mosaic"], count)
    wanted, back = jax.vjp(
        lambda *parts: fused_rows(*parts, sight, jnp.float32, drop, lowering), *parts
    )
    found, packed_back = jax.vjp(
        lambda packed: fused_packed(packed, sight, jnp.float32, drop, lowering),
        jnp.stack(parts, axis=2),
    )
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(packed_back(weight)[0], jnp.stack(back(weight), axis=2))


@pytest.mark.parametrize(
    ("compiler", "queries", "free"),
    mark_rest(
        [(name, q, f) for name in LOWERINGS for q in (3, 75) for f in (0, 5)],
        {("mosaic", 3, 5)},
    ),
)
def test_few_queries_and_keys_that_all_see(compiler, queries, free):
    attend = partial(fused_rows, lowering=LOWERINGS[compiler], blocks=(16, 16))
    case = make_case("packed", "near", 0.2, 32, queries, free)
    check(attend, *case, jnp.dtype("float32"), 1e-5)


def test_the_bits_of_dropout_are_those_of_all_scores_at_once():
    """With one-hot values, an output is what dropout leaves of a probability."""
    (query, key, *_), sight, drop = make_case("whole", "both ways", 0.5, 128)
    value = jnp.broadcast_to(jnp.eye(LENGTH, 128)[:, None], key.shape)
    attend = partial(fused_rows, lowering=LOWERINGS["triton"], blocks=(16, 32))
    run = jax.jit(lambda *parts: attend(*parts, sight, jnp.float32, drop), compiler_options=QUICK)
    found = run(query, key, value)
    found = found[..., :LENGTH].swapaxes(1, 2) != 0  # [b h q s]
    columns = dropout.columns_of_heads(drop.noise_ids[:, None, None], 2)
    wanted = dropout.keep_mask(drop.key, 0.5, drop.asking[:, None, :, None], columns)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("compiler", mark_rest([*LOWERINGS], {"triton"}))
def test_blocks_that_are_not_seen_are_not_read(compiler):
    """What is not a number in a block that is read spoils all that the block is computed with."""
    size, (query, key, value, weight), sight, _ = 16, *make_case("packed", "near", 0.0, 32)
    sides = cut(sight, Blocks(size, size, 1))
    needed = np.asarray(needed_blocks(sides, False, WINDOW, 2))  # [b n m]
    assert not needed[0, 2, [0, -1]].any()  # nothing on either side of the block in the middle
    own = slice(2 * size, 3 * size)
    attend = partial(fused_rows, lowering=LOWERINGS[compiler], blocks=(size, size))

    @partial(jax.jit, compiler_options=QUICK)
    def run(value, weight):
        y, back = jax.vjp(lambda v: attend(query, key, v, sight, jnp.float32, None), value)
        return y, *back(weight)

    def spoilt(x, unread):
        unread = np.repeat(unread, size, axis=-1)[:, :LENGTH, None, None]
        return jnp.where(unread, jnp.nan, x)

    y, _ = run(spoilt(value, ~needed[:, 2]), weight)
    assert np.isfinite(y[:, own]).all()
    assert not np.isfinite(y).all()
    _, by_value = run(value, spoilt(weight, ~needed[:, :, 2]))
    assert np.isfinite(by_value[:, own]).all()
    assert not np.isfinite(by_value).all()


@pytest.mark.exhaustive
def test_devices_that_share_the_heads_run_it_on_their_own():
    """In a process of its own, which has two devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = Path(__file__).with_name("fused_on_mesh.py")
    done = subprocess.run([sys.executable, worker], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


# --- Modules, and whole models -------------------------------------------------------------------

CPU = Device("cpu")


def test_a_module_gives_the_same_with_the_kernel():
    batch = {name: jnp.asarray(x) for name, x in texts("packed").items()}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, LENGTH, 32)), jnp.float32)
    ids = noise_ids_of(batch["segment_ids"], batch["position_ids"])
    is_read = batch["segment_ids"][..., None] > 0

    def run(attention):
        dtype = arithmetic(jnp.float32, CPU, attention)
        module = SelfAttention(2, 0.3, 0.1, dtype)
        seen = attention_bias(batch, causal=True, dtype=dtype)
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(1), x, seen, None))
        rng = np.random.default_rng(4)
        params = jax.tree.map(lambda leaf: 0.1 * rng.normal(size=leaf.shape), shapes)
        params = jax.tree.map(jnp.float32, params)

        @partial(jax.jit, compiler_options=QUICK)
        @partial(jax.grad, argnums=(0, 1), has_aux=True)
        def gradients(params, x):
            y = module.apply(params, x, seen, ids, rngs={"dropout": jax.random.key(2)}) * is_read
            return 0.02 * jnp.sum(jnp.sin(3 * y)), y  # gradients are about 1

        return gradients(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), run("fused"), run("auto")
    )


MODELS = [
    (family, layout)
    for family in FAMILIES
    if family not in ("resnet", "convnext")
    for layout in ("packed", "padded")
    if family not in IMAGES or layout == "padded"
]


def make_model(family, attention, length=128):
    """A tiny model of two or three layers with random weights, and its parameters."""
    part, head = FAMILIES[family], "image" if family in IMAGES else "sequence"
    hf_config = json.loads((GOLDEN / f"{family}-{head}" / "config.json").read_text())
    config = part.config_from_hf(hf_config, "config.json")
    for name in ("max_position_embeddings", "n_positions"):
        if hasattr(config, name):
            config = dataclasses.replace(config, **{name: length})
    module = part.make_module(head, config, 3, arithmetic(jnp.float32, CPU, attention))
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        parameter_shapes(module),
    )
    return make_apply(module), params, hf_config


def gradients_of(apply_fn):
    def loss(params, batch):
        y = apply_fn(params, batch, key=jax.random.key(1), train=True)
        weight = batch.get("weight", jnp.ones(y.shape[:-1]))
        return jnp.sum(jnp.sin(3 * y) * weight[..., None]), y * weight[..., None]

    return jax.grad(loss, has_aux=True)


def batch_of(family, layout, hf_config):
    if family in IMAGES:
        shape = (2, hf_config["image_size"], hf_config["image_size"], 3)
        return {"pixel_values": jnp.asarray(np.random.default_rng(0).normal(size=shape), "float32")}
    return {name: jnp.asarray(x) for name, x in texts(layout).items()}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("family", "layout"), MODELS)
def test_models_give_the_same_with_the_kernel(family, layout):
    found, wanted = [], []
    for into, attention in ((found, "fused"), (wanted, "auto")):
        apply_fn, params, hf_config = make_model(family, attention)
        run = jax.jit(gradients_of(apply_fn), compiler_options=QUICK)
        into.append(run(params, batch_of(family, layout, hf_config)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


def shapes_in(jaxpr):
    """Of every array that the program has, also inside of loops, calls and kernels."""
    for equation in jaxpr.eqns:
        for variable in (*equation.invars, *equation.outvars):
            yield getattr(variable.aval, "shape", ())
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


@pytest.mark.parametrize("family", mark_rest(["bert", "gpt2", "modernbert"], ["modernbert"]))
def test_no_step_of_training_has_an_array_of_all_pairs_of_tokens(family):
    has_pairs = {}
    for attention in ("auto", "fused"):
        apply_fn, params, _ = make_model(family, attention)
        batch = {name: jnp.asarray(x) for name, x in texts("packed", 2, 96).items()}
        shapes = set(shapes_in(jax.make_jaxpr(gradients_of(apply_fn))(params, batch).jaxpr))
        assert (2, 96) in shapes
        has_pairs[attention] = any(shape[-2:] == (96, 96) for shape in shapes)
    assert has_pairs == {"auto": True, "fused": False}


# --- Where it is chosen --------------------------------------------------------------------------


def test_it_is_chosen_where_it_is_asked_for():
    assert choose_path(128, 128) == "xla"
    assert choose_path(128, 128, wanted="fused") == choose_path(2, 8192, 64, "fused") == "fused"
    assert choose_path(1, 128, wanted="fused") == "xla"


@pytest.mark.parametrize(
    ("device", "changes", "words"),
    [
        (Device("cpu"), {}, "computes on a CPU: expected a GPU or a TPU"),
        (Device("gpu", 7.5), {}, "capability 7.5: expected 8.0"),
        (Device("gpu", 9.0), {"hidden_size": 96}, "heads have 24 features: expected 16, 32"),
    ],
)
def test_where_there_is_no_such_kernel_it_is_refused(device, changes, words):
    config = FAMILIES["bert"].config_from_hf(
        json.loads((GOLDEN / "bert-sequence" / "config.json").read_text()), "config.json"
    )
    usual = {"hidden_size": 128, "num_attention_heads": 4}
    config = dataclasses.replace(config, **(usual | changes))
    check_attention("auto", config, device)
    with pytest.raises(UserError, match=words) as error:
        check_attention("fused", config, device)
    assert "config.precision.attention=auto" in str(error.value)
    check_attention("fused", dataclasses.replace(config, hidden_size=128), Device("gpu", 9.0))


def test_a_model_without_attention_has_no_kernel():
    with pytest.raises(UserError, match="no attention: expected a transformer"):
        check_attention("fused", object(), Device("tpu"))


def test_blocks_fit_rows_or_fill_them():
    sizes = {length: block_size(LOWERINGS["triton"], length) for length in (3, 48, 128, 75, 8200)}
    assert sizes == {3: 16, 48: 16, 128: 64, 75: 64, 8200: 64}
    assert block_size(LOWERINGS["mosaic"], 48) == 128


def test_a_row_that_a_core_has_no_room_for_is_attended_to_in_blocks():
    module = SelfAttention(1, 0.0, 0.1, Arithmetic(jnp.dtype("float32"), Device("tpu"), "fused"))
    kernels = {}
    for length in (8192, 8200):
        batch = {"attention_mask": jnp.ones((1, length), jnp.int32)}
        seen = attention_bias(batch, dtype=module.dtype)
        query = jax.ShapeDtypeStruct((1, length, 1, 64), jnp.float32)
        kernels[length] = module.kernel(query, query, seen, None)
    assert kernels == {8192: "fused", 8200: "blockwise"}
    assert fits(LOWERINGS["triton"], 10**6, 10**6, 64)


# --- Compiled, where the compilers are ------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["h100", "v5e"])
def test_compilers_take_it(name):
    """For a device that is not here, in a process of its own: compilers read its environment."""
    pytest.importorskip("jaxtune.analysis.targets")
    pytest.importorskip("libtpu" if name == "v5e" else "jax_cuda12_plugin")
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = Path(__file__).with_name("fused_compiled.py")
    done = subprocess.run(
        [sys.executable, worker, name], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
