"""Models under JAX's own transformations: export for any size, vmap, gradients, explicit meshes.

What each gives is compared with a plain call of `apply_fn`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cover import cover, mark_rest
from jax import export
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Params
from jaxtune.models.recompute import make_recomputing_apply
from jaxtune.models.registry import FAMILIES, init_params, make_apply
from jaxtune.training import losses, optimizers
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection, partition
from jaxtune.tuning.lora import Lora
from jaxtune.tuning.selective import Full

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
CASES = [(family, head) for family in FAMILIES for head in FAMILIES[family].heads]
COVER = set(cover(CASES))
FEWER = {("bert", "sequence"), ("resnet", "image")}
some_cases = pytest.mark.parametrize(("family", "head"), mark_rest(CASES, COVER))
fewer_cases = pytest.mark.parametrize(("family", "head"), mark_rest(CASES, FEWER))


class Case(NamedTuple):
    """A small model of one layer, drawn at random."""

    module: Any
    apply_fn: ApplyFn
    params: Params


def make_case(family, head, dtype=jnp.float32, **fields):
    part = FAMILIES[family]
    kind = "sequence" if "sequence" in part.heads else "image"
    hf_config = json.loads((GOLDEN / f"{family}-{kind}" / "config.json").read_text()) | fields
    config: Any = part.config_from_hf(hf_config, "config.json")
    for name in ("num_hidden_layers", "n_layers", "n_layer"):
        if hasattr(config, name):
            config = dataclasses.replace(config, **{name: 1})
    module = part.make_module(head, config, 3, dtype)
    params = jax.jit(lambda: init_params(module, jax.random.key(0)))()
    return Case(module, make_apply(module), params)


def batch_for(case, rows, length, seed=0):
    rng = np.random.default_rng(seed)
    example = case.module.example_batch()
    if "pixel_values" in example:
        shape = (rows, *example["pixel_values"].shape[1:])
        return {"pixel_values": jnp.asarray(rng.normal(size=shape), jnp.float32)}
    mask = np.ones((rows, length), np.int32)
    mask[-1, length // 2 :] = 0
    ids = rng.integers(0, 30, (rows, length))
    return {"input_ids": jnp.asarray(ids, jnp.int32), "attention_mask": jnp.asarray(mask)}


def forward_of(case):
    return jax.jit(lambda params, batch: case.apply_fn(params, batch, key=None, train=False))


def shapes_of(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def test_the_cover_has_every_family_and_every_head():
    assert set(CASES) >= COVER
    for place in (0, 1):
        assert {case[place] for case in COVER} == {case[place] for case in CASES}


# --- Export for any batch size and any length -----------------------------------------------


def check_export(case):
    """Exported once, then called for two sizes; odd ones too."""
    batch = shapes_of(batch_for(case, 2, 4))
    rows, length = export.symbolic_shape("rows, length")
    any_size = {
        name: jax.ShapeDtypeStruct(
            (rows, *leaf.shape[1:]) if leaf.ndim > 2 else (rows, length), leaf.dtype
        )
        for name, leaf in batch.items()
    }
    forward = forward_of(case)
    exported = export.export(forward)(shapes_of(case.params), any_size)
    for size in ((3, 7), (2, 10)):
        inputs = batch_for(case, *size)
        found = jax.jit(exported.call)(case.params, inputs)
        wanted = forward(case.params, inputs)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@fewer_cases
def test_one_export_takes_batches_of_any_size(family, head):
    check_export(make_case(family, head))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("family", "head"), sorted(COVER))
def test_one_export_takes_batches_of_any_size_in_bfloat16(family, head):
    check_export(make_case(family, head, jnp.bfloat16))


@pytest.mark.exhaustive
def test_a_mean_over_tokens_is_exported_for_any_size():
    check_export(make_case("modernbert", "sequence", classifier_pooling="mean"))


@pytest.mark.parametrize(
    "dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.exhaustive)]
)
def test_gradients_are_exported_for_any_size(dtype):
    case = make_case("bert", "sequence", dtype)
    rows, length = export.symbolic_shape("rows, length")

    def loss(params, batch):
        key = jax.random.key(1)  # dropout, too
        return jnp.sum(jnp.sin(case.apply_fn(params, batch, key=key, train=True)))

    any_size = {
        name: jax.ShapeDtypeStruct((rows, length), jnp.int32)
        for name in ("input_ids", "attention_mask")
    }
    gradient = jax.jit(jax.grad(loss))
    exported = export.export(gradient)(shapes_of(case.params), any_size)
    batch = batch_for(case, 3, 5)
    found, wanted = exported.call(case.params, batch), gradient(case.params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


# --- vmap -----------------------------------------------------------------------------------


@fewer_cases
def test_vmap_over_batches_and_over_rows(family, head):
    case = make_case(family, head)
    forward = forward_of(case)
    batches = [batch_for(case, 2, 6, seed) for seed in (1, 2)]
    wanted = [forward(case.params, batch) for batch in batches]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)  # [k b ...]
    found = jax.jit(jax.vmap(forward, in_axes=(None, 0)))(case.params, stacked)
    np.testing.assert_allclose(found, jnp.stack(wanted), atol=1e-5)

    def one_row(params, row):
        return forward(params, jax.tree.map(lambda leaf: leaf[None], row))[0]

    found = jax.jit(jax.vmap(one_row, in_axes=(None, 0)))(case.params, batches[0])
    np.testing.assert_allclose(found, wanted[0], atol=1e-5)


# --- Gradients of what a model reads ---------------------------------------------------------


@fewer_cases
def test_gradients_reach_the_embeddings(family, head):
    """Against central differences in float64, along one direction."""
    with jax.enable_x64(True):
        case = make_case(family, head, jnp.float64)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), case.params)
        batch = batch_for(case, 2, 6)
        embedded = case.module.apply({"params": params}, batch, method="embed")

        @jax.jit
        def score(x):
            return jnp.sum(
                jnp.sin(case.module.apply({"params": params}, x, batch, 0, method="suffix"))
            )

        direction = jnp.asarray(np.random.default_rng(3).normal(size=embedded.shape))
        found = jnp.vdot(jax.grad(score)(embedded), direction)
        step = 1e-6
        up, down = score(embedded + step * direction), score(embedded - step * direction)
        assert found != 0
        np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-5)


# --- A mesh whose axes are explicit ----------------------------------------------------------


def train_batch(case):
    batch = batch_for(case, 4, 6)
    outputs = jax.eval_shape(forward_of(case), case.params, batch)
    labels = jnp.zeros(outputs.shape[:-1], jnp.int32)
    return batch | {"labels": labels, "weight": jnp.ones(labels.shape)}


def make_step(case, **options):
    labels = partition.label(Full(), case.params)
    trained = partition.trainable_labels(labels)
    tx = optimizers.make_optimizer("sgd", optax.constant_schedule(1e-1), trained)

    def step(params, batch):
        trainable, frozen = partition.partition(params, labels)
        state = init_state(trainable, tx, jax.random.key(1))
        train_step = make_train_step(case.apply_fn, losses.cross_entropy, tx, **options)
        return train_step(state, frozen, batch)

    return step


EXPLICIT = AbstractMesh((2,), ("rows",), axis_types=(AxisType.Explicit,))


def placed(tree, spec):
    """Shapes of arrays that lie on EXPLICIT."""

    def place(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(EXPLICIT, spec))

    return jax.tree.map(place, tree)


def test_recomputing_models_too():
    case = make_case("resnet", "image")
    case = case._replace(apply_fn=make_recomputing_apply(case.module))
    params, batch = placed(case.params, P()), placed(train_batch(case), P("rows"))
    with jax.sharding.use_abstract_mesh(EXPLICIT):
        traced = jax.jit(make_step(case)).trace(params, batch)
    assert traced.out_info[1].loss.total.shape == ()


def test_a_strategy_that_adds_parameters_finds_them_there():
    case = make_case("bert", "sequence")
    lora = Lora(rank=2)
    params = injection.extend(lora, case.params, jax.random.key(2))
    case = case._replace(params=params, apply_fn=injection.adapt(lora, case.apply_fn))
    batch = placed(train_batch(case), P("rows"))
    with jax.sharding.use_abstract_mesh(EXPLICIT):
        traced = jax.jit(make_step(case)).trace(placed(params, P()), batch)
    assert traced.out_info[1].loss.total.shape == ()


def test_microbatches_of_shared_rows_name_the_kind_of_axes_to_make():
    case = make_case("bert", "sequence")
    step, params = jax.jit(make_step(case, num_microbatches=2)), placed(case.params, P())
    shared, whole = (placed(train_batch(case), spec) for spec in (P("rows"), P()))
    with jax.sharding.use_abstract_mesh(EXPLICIT):
        with pytest.raises(UserError, match=r"2 microbatches .*AxisType\.Auto"):
            step.trace(params, shared)
        step.trace(params, whole)


@fewer_cases
def test_a_step_is_traced_on_an_explicit_mesh(family, head):
    case = make_case(family, head)
    params, batch = placed(case.params, P()), placed(train_batch(case), P("rows"))
    with jax.sharding.use_abstract_mesh(EXPLICIT):
        traced = jax.jit(make_step(case)).trace(params, batch)
        outputs = jax.eval_shape(forward_of(case), params, batch)
    assert {leaf.shape for leaf in jax.tree.leaves(traced.out_info[0].params)} == {
        leaf.shape for leaf in jax.tree.leaves(params)
    }
    assert outputs.sharding.spec[0] == "rows"  # where the rows of the batch lie
    assert traced.out_info[1].loss.total.sharding.spec == P()


def test_an_explicit_mesh_gives_the_same_numbers():
    case = make_case("bert", "sequence")
    batch, step = train_batch(case), make_step(case)
    wanted = jax.jit(step)(case.params, batch)
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = jax.device_put(case.params, NamedSharding(mesh, P()))
        found = jax.jit(step)(params, jax.device_put(batch, NamedSharding(mesh, P("rows"))))
    jax.tree.map(np.testing.assert_array_equal, found[0].params, wanted[0].params)
    np.testing.assert_array_equal(found[1].loss.total, wanted[1].loss.total)
