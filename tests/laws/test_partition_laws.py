"""What holds for every strategy, on jaxtune's BERT and on a model with other names."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune import paths, trees
from jaxtune.losses import cross_entropy
from jaxtune.models.pretrained import load_pretrained
from jaxtune.optim import make_optimizer
from jaxtune.state import init_state
from jaxtune.step import make_train_step
from jaxtune.tuning import partition
from jaxtune.tuning.registry import STRATEGIES, make_strategy

ODD = Path(__file__).parents[1] / "golden" / "bert" / "odd"
LAYERS = 3  # of both models
KEY_BIAS = "attention/self/key/bias"  # softmax cancels it: its gradient is zero but for rounding
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


class Model(NamedTuple):
    apply_fn: Any
    params: Any
    batch: Any
    names: dict[str, str]  # the strategies' regexes, where the names are not BERT's


class Trained(NamedTuple):
    before: Any
    after: Any
    frozen_before: Any
    frozen_after: Any
    opt_state: Any
    traces: int
    flops: float | None


@functools.cache
def bert():
    model = load_pretrained(ODD)
    rng = np.random.default_rng(0)
    mask = (np.arange(8) < np.array([8, 5, 3, 7])[:, None]).astype(np.int32)
    batch = {
        "input_ids": rng.integers(5, 90, (4, 8)).astype(np.int32) * mask,
        "token_type_ids": (np.arange(8) > 3).astype(np.int32) * mask,
        "attention_mask": mask,
        "labels": np.array([0, 1, 2, 1], np.int32),
        "weight": np.array([1, 1, 0.5, 1], np.float32),
    }
    return Model(model.apply_fn, model.params, batch, {})


@functools.cache
def toy():
    """A bag of words and residual layers as a plain pytree."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(0.4 * rng.normal(size=shape), jnp.float32)

    params = {
        "embed": {"table": draw(11, 6)},
        "blocks": {f"block_{i}": {"w": draw(6, 6), "bias": draw(6)} for i in range(LAYERS)},
        "out": {"w": draw(6, 3), "bias": draw(3)},
    }

    def apply_fn(params, batch, *, key, train):
        x = params["embed"]["table"][batch["input_ids"]].mean(1)
        if train:
            x = x * jax.random.bernoulli(key, 0.9, x.shape)
        for i in range(LAYERS):
            block = params["blocks"][f"block_{i}"]
            x = x + jnp.tanh(x @ block["w"] + block["bias"])
        return x @ params["out"]["w"] + params["out"]["bias"]

    batch = {
        "input_ids": rng.integers(0, 11, (6, 5)).astype(np.int32),
        "labels": rng.integers(0, 3, 6).astype(np.int32),
        "weight": np.array([1, 1, 1, 0, 1, 0.5], np.float32),
    }
    names = {
        "layers": r"^blocks/block_(\d+)/",
        "below": r"^embed/",
        "head": r"^out/",
        "norms": r"^blocks/block_1/w$",  # it has none: any part will do
    }
    return Model(apply_fn, params, batch, names)


MODELS = {"bert": bert, "toy": toy}
INSTANCES = {
    "full": ("full", {}),
    "head": ("head", {}),
    "none": ("last_layers", {"num_layers": 0}),
    "one": ("last_layers", {"num_layers": 1}),
    "all": ("last_layers", {"num_layers": LAYERS}),
    "upper": ("first_layers_frozen", {"num_layers": 2}),
    "no_embeddings": ("embeddings_frozen", {}),
    "bitfit": ("bitfit", {}),
    "layernorm": ("layernorm", {}),
    "rules": ("rules", {"rules": ("bias$=frozen", "(layer/|block_)1/=trainable", ".*=frozen")}),
}


def strategy_of(which, model):
    name, fields = INSTANCES[which]
    known = {field.name for field in dataclasses.fields(STRATEGIES[name])}
    names = {field: regex for field, regex in model.names.items() if field in known}
    return make_strategy(name, fields | names)


@functools.cache
def halves(model_name, which):
    """(labels, params, frozen)."""
    model = MODELS[model_name]()
    labels = partition.label(strategy_of(which, model), model.params)
    return labels, *partition.partition(model.params, labels)


@functools.cache
def train(model_name, which):
    """Twenty AdamW steps with decay and clipping on."""
    model = MODELS[model_name]()
    labels, params, frozen = halves(model_name, which)
    tx = make_optimizer(
        "adamw",
        optax.constant_schedule(0.01),
        partition.trainable_labels(labels),
        weight_decay=0.1,
        clip_norm=0.1,
    )
    train_step = make_train_step(model.apply_fn, cross_entropy, tx)
    traces = []

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=QUICK)
    def step(*arguments):
        traces.append(0)
        return train_step(*arguments)

    state = init_state(params, tx, jax.random.key(0))
    frozen_before = jax.device_get(frozen)
    compiled = step.lower(state, frozen, model.batch).compile()
    costs = compiled.cost_analysis()
    for _ in range(20):
        state, _ = step(state, frozen, model.batch)
    return Trained(
        jax.device_get(params),
        jax.device_get(state.params),
        frozen_before,
        jax.device_get(frozen),
        state.opt_state,
        len(traces),
        costs.get("flops") if costs else None,
    )


@functools.cache
def gradient(model_name, which):
    """The gradient of the mean loss without dropout, by leaf name."""
    model = MODELS[model_name]()
    _, params, frozen = halves(model_name, which)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.grad
    def mean_loss(params, frozen):
        outputs = model.apply_fn(trees.merge(params, frozen), model.batch, key=None, train=False)
        return cross_entropy(outputs, model.batch).value

    return paths.flatten(jax.device_get(mean_loss(params, frozen)))


for_every_model = pytest.mark.parametrize("model_name", MODELS)
for_every_strategy = pytest.mark.parametrize("which", INSTANCES)


def test_the_instances_cover_every_strategy():
    assert {name for name, _ in INSTANCES.values()} == set(STRATEGIES)


@for_every_model
@for_every_strategy
def test_merging_the_halves_gives_the_parameters(model_name, which):
    _, params, frozen = halves(model_name, which)
    whole = MODELS[model_name]().params
    merged = trees.merge(params, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(whole)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, merged, whole)))
    assert trees.count(params) + trees.count(frozen) == trees.count(whole)


@for_every_model
@for_every_strategy
def test_frozen_leaves_keep_their_bits_and_trainable_ones_move(model_name, which):
    run = train(model_name, which)
    jax.tree.map(np.testing.assert_array_equal, run.frozen_before, run.frozen_after)
    # The caller's parameters, of which the halves are views, are as before too.
    whole = jax.device_get(MODELS[model_name]().params)
    jax.tree.map(np.testing.assert_array_equal, trees.merge(run.before, run.frozen_before), whole)
    before, after = paths.flatten(run.before), paths.flatten(run.after)
    assert before.keys() == after.keys()
    still = [
        name
        for name in before
        if np.array_equal(before[name], after[name]) and not name.endswith(KEY_BIAS)
    ]
    assert still == []
    assert all(np.isfinite(leaf).all() for leaf in after.values())


@for_every_model
@for_every_strategy
def test_the_optimizer_keeps_eight_bytes_for_each_trainable_parameter(model_name, which):
    run = train(model_name, which)
    floats = [x for x in jax.tree.leaves(run.opt_state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert trees.num_bytes(floats) == 8 * trees.count(run.before)
    rest = trees.num_bytes(run.opt_state) - trees.num_bytes(floats)
    assert rest <= 64  # counts of steps


@for_every_model
@for_every_strategy
def test_all_steps_are_traced_once(model_name, which):
    assert train(model_name, which).traces == 1


@for_every_model
@for_every_strategy
def test_the_gradient_is_that_of_full_where_there_is_one(model_name, which):
    labels, *_ = halves(model_name, which)
    found, full = gradient(model_name, which), gradient(model_name, "full")
    trainable = {n for n, label in paths.flatten(labels).items() if label != partition.FROZEN}
    assert found.keys() == trainable
    size = max(np.abs(g).max() for g in full.values())
    for name, g in found.items():
        # Relative to the largest entry of the leaf, or of all where it is nothing but rounding.
        scale = size if name.endswith(KEY_BIAS) else np.abs(full[name]).max()
        np.testing.assert_allclose(g / scale, full[name] / scale, rtol=0, atol=5e-6, err_msg=name)


@for_every_model
def test_a_step_of_fewer_layers_computes_less(model_name):
    order = ("head", "none", "one", "upper", "full")
    flops = {which: train(model_name, which).flops for which in order}
    if None in flops.values():
        pytest.skip("this backend does not count operations")
    assert list(flops.values()) == sorted(flops.values())
    assert flops["upper"] == flops["one"] < 0.8 * flops["full"]  # of three layers: the same leaves


@for_every_model
@for_every_strategy
def test_clipping_measures_the_trainable_leaves_alone(model_name, which):
    labels, params, _ = halves(model_name, which)
    wanted = partition.trainable_labels(labels)
    grads = jax.tree.unflatten(
        jax.tree.structure(params), list(gradient(model_name, which).values())
    )
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in jax.tree.leaves(grads)))
    clips = {1.0: 2 * norm, 0.25: norm / 4}  # factor -> largest norm

    @functools.partial(jax.jit, compiler_options=QUICK)
    def clipped(grads):
        found = {}
        for factor, clip in clips.items():
            tx = make_optimizer(
                "sgd", optax.constant_schedule(1.0), wanted,
                weight_decay=0.0, clip_norm=float(clip), momentum=0.0,
            )  # fmt: skip
            found[factor], _ = tx.update(grads, tx.init(params), params)
        return found

    for factor, updates in clipped(grads).items():
        for update, g in zip(jax.tree.leaves(updates), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(update, -factor * g, rtol=1e-5, atol=1e-7)
