"""What holds for every strategy, on jaxtune's BERT and on two models with other names."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cover import mark_rest

from jaxtune.core import paths, trees
from jaxtune.core.errors import UserError
from jaxtune.models.pretrained import load_pretrained
from jaxtune.run.stages import carry
from jaxtune.training.losses import cross_entropy
from jaxtune.training.optimizers import SGD, make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection, partition
from jaxtune.tuning.registry import STRATEGIES, make_strategy

ODD = Path(__file__).parents[1] / "golden" / "bert" / "odd"
LAYERS = 3  # of all models
MATRICES = (r"layer/\d+/.*kernel$",)
ADDERS = {"lora", "ia3", "adapter", "prefix"}
KEY_BIAS = "attention/self/key/bias"  # softmax cancels it: its gradient is zero but for rounding
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


class Model(NamedTuple):
    apply_fn: Any
    params: Any
    batch: Any
    names: dict[str, Any]  # the strategies' regexes, where the names are not BERT's


class Trained(NamedTuple):
    """One stage of a run, from before its first step to after its last."""

    before: Any
    after: Any
    frozen_before: Any
    frozen_after: Any
    opt_state: Any
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


class Mixing(nn.Module):
    """Attention with one head and with the method that a prefix needs."""

    @nn.compact
    def __call__(self, x):
        query, key, value = (nn.Dense(6, name=name)(x) for name in ("ask", "seek", "give"))
        bias = jnp.zeros((x.shape[0], 1, 1, x.shape[1]))
        return self.attend(*(y[:, :, None, :] for y in (query, key, value)), bias, None, None)

    def attend(self, query, key, value, bias, asking, tokens):
        weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", query, key) + bias)
        return jnp.einsum("bhts,bshk->bthk", weights, value)[:, :, 0]


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + Mixing(name="mixing")(x)
        return x + nn.Dense(6, name="narrow")(jnp.tanh(nn.Dense(9, name="wide")(x)))


class Net(nn.Module):
    """A Linen model with none of BERT's names."""

    @nn.compact
    def __call__(self, ids, train):
        x = nn.Embed(11, 6, embedding_init=nn.initializers.normal(1.0), name="embed")(ids)
        x = nn.Dropout(0.1, deterministic=not train)(x)
        for i in range(LAYERS):
            x = Block(name=f"block_{i}")(x)
        return nn.Dense(3, name="out")(x.mean(1))


@functools.cache
def net():
    module, batch = Net(), toy().batch

    def apply_fn(params, batch, *, key, train):
        rngs = {"dropout": key} if train else None
        return module.apply({"params": params}, batch["input_ids"], train, rngs=rngs)

    params = module.init(jax.random.key(3), batch["input_ids"], False)["params"]
    names = {
        "layers": r"^block_(\d+)/",
        "below": r"^embed/",
        "head": r"^out/",
        "norms": r"^block_1/narrow/kernel$",
    }
    return Model(apply_fn, params, batch, names)


MODELS = {"bert": bert, "toy": toy, "net": net}
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
    "ulmfit": ("gradual", {"layers_per_stage": 2}),
    "chain_thaw": ("gradual", {"order": "chain_thaw", "layers_per_stage": 2}),
    "lora": ("lora", {"rank": 2}),
    "rslora": ("lora", {"rank": 3, "use_rslora": True, "targets": MATRICES}),
    "dora": ("lora", {"rank": 2, "use_dora": True}),
    "ia3": ("ia3", {}),
    "houlsby": ("adapter", {"bottleneck_size": 4, "placement": "houlsby"}),
    "pfeiffer": ("adapter", {"bottleneck_size": 4}),
    "prefix": ("prefix", {"prefix_length": 2}),
    "union": ("lora+bitfit", {"rank": 2}),
    "both": ("lora+ia3", {"rank": 2}),
    "stacked": ("lora+adapter", {"rank": 2, "bottleneck_size": 3}),
}
TARGETS = {  # of the strategies that add parameters, in the models without BERT's names
    "toy": {
        "lora": {"targets": (r"block_\d+/w$",)},
        "ia3": {"targets": (r"block_\d+/w$",), "feedforward_targets": (r"block_\d+/w$",)},
    },
    "net": {
        "lora": {"targets": (r"mixing/(?:ask|give)/kernel$",)},
        "ia3": {
            "targets": (r"mixing/(?:seek|give)/kernel$",),
            "feedforward_targets": (r"narrow/kernel$",),
        },
        "adapter": {"targets": (r"narrow/kernel$",)},
        "houlsby": {"targets": (r"(?:mixing/give|narrow)/kernel$",)},
        "prefix": {"targets": (r"mixing/seek/kernel$",)},
    },
}
FIRST_KEY, OTHER_KEY = jax.random.key(1), jax.random.key(2)
ADDING = [which for which, (name, _) in INSTANCES.items() if set(name.split("+")) & ADDERS]
IDENTITY = [which for which in ADDING if which != "prefix"]  # which start as the model was
MERGEABLE = [which for which in ADDING if which not in ("houlsby", "pfeiffer", "prefix", "stacked")]
PLAIN = [w for w in INSTANCES if w not in ADDING or (w in MERGEABLE and w != "both")]
# A plain function has no calls that could be edited; net shows what only those strategies do.
CASES = [(m, w) for m in ("bert", "toy") for w in INSTANCES if m == "bert" or w in PLAIN]
CASES += [("net", which) for which in ("full", *ADDING)]
ON_OTHERS = {
    "bert": ("one", "stacked"),  # what is trained is read off the labels
    "net": [which for which in ADDING if which not in PLAIN],  # what a plain function cannot show
}
DEFAULT = [case for case in CASES if case[1] in ON_OTHERS.get(case[0], INSTANCES)]


def cases(*conditions):
    """Parameters of a test: the cases whose strategy is in all of some lists."""
    found = [case for case in CASES if all(case[1] in those for those in conditions)]
    return pytest.mark.parametrize(
        ("model_name", "which"), mark_rest(found, [case for case in found if case in DEFAULT])
    )


def strategy_of(which, model_name):
    name, fields = INSTANCES[which]
    model, parts = MODELS[model_name](), name.split("+")
    known = {field.name for part in parts for field in dataclasses.fields(STRATEGIES[part])}
    names = {field: regex for field, regex in model.names.items() if field in known}
    for key in (*parts, which):  # by strategy, or for this instance of it
        names |= TARGETS.get(model_name, {}).get(key, {})
    return make_strategy(name, fields | names)


class Case(NamedTuple):
    """A strategy on a model: the extended tree and the model on it."""

    apply_fn: Any
    params: Any
    stages: tuple[Any, ...]
    batch: Any


@functools.cache
def case(model_name, which):
    model, strategy = MODELS[model_name](), strategy_of(which, model_name)
    params = injection.extend(strategy, model.params, FIRST_KEY)
    stages = partition.stages(strategy, params)
    return Case(injection.adapt(strategy, model.apply_fn), params, stages, model.batch)


def shaken(params):
    """The tree with noise on every added leaf, so that nothing is at its start."""
    flat = paths.flatten(params)
    noisy = {
        name: leaf + 0.1 * jax.random.normal(jax.random.fold_in(OTHER_KEY, i), leaf.shape)
        for i, (name, leaf) in enumerate(flat.items())
        if re.search(r"_lora_|_ia3_|_dora_|/adapter/|/prefix/", name)
    }
    return paths.unflatten(flat | noisy)


@functools.cache
def train(model_name, which):
    """Twenty AdamW steps with decay and clipping on, in stages of equal length."""
    apply_fn, whole, stages, batch = case(model_name, which)
    traces, state, found = [], None, []
    for labels in stages:
        tx = make_optimizer(
            "adamw",
            optax.constant_schedule(0.01),
            partition.trainable_labels(labels),
            weight_decay=0.1,
            clip_norm=0.1,
        )
        train_step = make_train_step(apply_fn, cross_entropy, tx)

        @functools.partial(jax.jit, donate_argnums=0, compiler_options=QUICK)
        def step(*arguments, train_step=train_step):
            traces.append(0)
            return train_step(*arguments)

        params, frozen = partition.partition(whole, labels)
        old, state = state, init_state(params, tx, jax.random.key(0))
        if old is not None:
            kept = carry(old.opt_state, state.opt_state)
            state = state._replace(step=old.step, key=old.key, opt_state=kept)
        before = jax.device_get((params, frozen))
        costs = step.lower(state, frozen, batch).compile().cost_analysis()
        for _ in range(20 // len(stages)):
            state, _ = step(state, frozen, batch)
        whole = jax.tree.map(jnp.array, trees.merge(state.params, frozen))
        after = jax.device_get((state.params, frozen))
        flops = costs.get("flops") if costs else None
        moments = jax.device_get(state.opt_state)
        found.append(Trained(before[0], after[0], before[1], after[1], moments, flops))
    assert len(traces) == len(stages)
    return tuple(found)


@functools.cache
def gradient(model_name, which, all_leaves=False):
    """The gradient of the mean loss without dropout, by leaf name, in the last stage."""
    apply_fn, whole, stages, batch = case(model_name, which)
    labels = jax.tree.map(lambda _: partition.TRAINABLE, whole) if all_leaves else stages[-1]
    params, frozen = partition.partition(whole, labels)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.grad
    def mean_loss(params, frozen):
        outputs = apply_fn(trees.merge(params, frozen), batch, key=None, train=False)
        return cross_entropy(outputs, batch).value

    return paths.flatten(jax.device_get(mean_loss(params, frozen)))


for_every_case = cases()


def test_the_instances_cover_every_strategy():
    assert {name for name, _ in INSTANCES.values() if "+" not in name} == set(STRATEGIES)


@for_every_case
def test_merging_the_halves_gives_the_parameters(model_name, which):
    _, whole, stages, _ = case(model_name, which)
    for labels in stages:
        params, frozen = partition.partition(whole, labels)
        merged = trees.merge(params, frozen)
        assert jax.tree.structure(merged) == jax.tree.structure(whole)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, merged, whole)))
        assert trees.count(params) + trees.count(frozen) == trees.count(whole)


@for_every_case
def test_frozen_leaves_keep_their_bits_and_trainable_ones_move(model_name, which):
    for run in train(model_name, which):
        jax.tree.map(np.testing.assert_array_equal, run.frozen_before, run.frozen_after)
        before, after = paths.flatten(run.before), paths.flatten(run.after)
        assert before.keys() == after.keys()
        still = [
            name
            for name in before
            if np.array_equal(before[name], after[name]) and not name.endswith(KEY_BIAS)
        ]
        assert still == []
        assert all(np.isfinite(leaf).all() for leaf in after.values())
    # The caller's parameters, of which the halves are views, are as before too.
    first = train(model_name, which)[0]
    whole = jax.device_get(case(model_name, which).params)
    merged = trees.merge(first.before, first.frozen_before)
    jax.tree.map(np.testing.assert_array_equal, merged, whole)


@for_every_case
def test_the_optimizer_keeps_eight_bytes_for_each_trainable_parameter(model_name, which):
    for run in train(model_name, which):
        leaves = jax.tree.leaves(run.opt_state)
        floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
        assert trees.num_bytes(floats) == 8 * trees.count(run.before)
        rest = trees.num_bytes(run.opt_state) - trees.num_bytes(floats)
        assert rest <= 64  # counts of steps


@for_every_case
def test_each_stage_is_traced_once(model_name, which):
    expected = {"ulmfit": 4, "chain_thaw": 5}.get(which, 1)
    assert len(train(model_name, which)) == expected  # train asserts as many traces


@for_every_case
def test_the_gradient_is_that_of_full_where_there_is_one(model_name, which):
    stages = case(model_name, which).stages
    found, full = gradient(model_name, which), gradient(model_name, which, all_leaves=True)
    labels = paths.flatten(stages[-1])
    assert found.keys() == {n for n, label in labels.items() if label != partition.FROZEN}
    size = max(np.abs(g).max() for g in full.values())
    for name, g in found.items():
        # Relative to the largest entry of the leaf, or of all where it is nothing but rounding.
        # The two programs may add in other orders: jax 0.12 agrees to the bit, 0.10 within 1.6e-6.
        scale = np.abs(full[name]).max()
        scale = size if name.endswith(KEY_BIAS) or scale == 0 else scale
        np.testing.assert_allclose(g / scale, full[name] / scale, rtol=0, atol=2e-6, err_msg=name)


@cases(IDENTITY)
@pytest.mark.parametrize("train", [False, True])
def test_what_is_added_starts_as_the_identity(model_name, which, train):
    model, (apply_fn, params, _, batch) = MODELS[model_name](), case(model_name, which)
    key = jax.random.key(0)
    before = model.apply_fn(model.params, batch, key=key, train=train)
    after = apply_fn(params, batch, key=key, train=train)
    # DoRA in a plain function divides by a length and multiplies by it again.
    tolerance = 1e-6 if model_name == "toy" else 0.0
    np.testing.assert_allclose(after, before, rtol=tolerance, atol=tolerance)


@cases(ADDING)
def test_every_added_leaf_acts(model_name, which):
    apply_fn, params, _, batch = case(model_name, which)
    flat = paths.flatten(shaken(params))
    apply_fn = jax.jit(functools.partial(apply_fn, key=None, train=False), compiler_options=QUICK)
    outputs = apply_fn(paths.unflatten(flat), batch)
    for name in flat.keys() - paths.flatten(MODELS[model_name]().params).keys():
        noise = jax.random.normal(OTHER_KEY, flat[name].shape)  # LayerNorm cancels a constant
        other = apply_fn(paths.unflatten(flat | {name: flat[name] + noise}), batch)
        assert np.abs(other - outputs).max() > 1e-5, name


@cases(MERGEABLE)
def test_the_merged_model_computes_the_same(model_name, which):
    model, strategy = MODELS[model_name](), strategy_of(which, model_name)
    apply_fn, params, _, batch = case(model_name, which)
    params = shaken(params)
    merged = injection.merge(strategy, params)
    assert jax.tree.structure(merged) == jax.tree.structure(model.params)

    def loss(params, apply_fn):
        return cross_entropy(apply_fn(params, batch, key=None, train=False), batch).value

    found, found_grad = jax.value_and_grad(loss)(params, apply_fn)
    wanted, wanted_grad = jax.value_and_grad(
        lambda params: loss(injection.merge(strategy, params), model.apply_fn)
    )(params)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    # The chain rule through the merged matrix: for LoRA dA = s dW B^T and dB = s A^T dW.
    grads = paths.flatten(found_grad), paths.flatten(wanted_grad)
    for name in set(grads[0]) - set(paths.flatten(model.params)):
        size = np.abs(grads[1][name]).max()
        np.testing.assert_allclose(
            grads[0][name] / size, grads[1][name] / size, rtol=0, atol=2e-4, err_msg=name
        )


@pytest.mark.parametrize("which", ["houlsby", "pfeiffer", "prefix", "stacked"])
def test_what_cannot_be_merged_says_so(which):
    with pytest.raises(UserError, match="cannot be merged"):
        injection.merge(strategy_of(which, "bert"), case("bert", which).params)
    assert not injection.is_mergeable(strategy_of(which, "bert"))


@pytest.mark.parametrize("which", ["houlsby", "pfeiffer", "prefix"])
def test_a_plain_function_has_no_calls_to_edit(which):
    """It is an error at tracing, not a model that ignores what was added."""
    targets = {"targets": (r"block_\d+/w$",)}
    name, fields = INSTANCES[which]
    strategy = make_strategy(name, fields | targets | {"head": "^out/"})
    params = injection.extend(strategy, toy().params, FIRST_KEY)
    with pytest.raises(UserError, match="Linen modules"):
        injection.adapt(strategy, toy().apply_fn)(params, toy().batch, key=None, train=False)


class Backwards(nn.Module):
    """A module with a matrix called kernel that it uses in its own way."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(1.0), (6, 6))
        return x @ kernel.T


@pytest.mark.parametrize(
    ("name", "fields"),
    [("lora", {"rank": 2}), ("ia3", {"feedforward_targets": (r"turn/kernel$",)})],
)
def test_a_matrix_of_another_kind_of_module_is_merged_in_the_step(name, fields):
    """What stands beside a Dense would be wrong beside a module that transposes its kernel."""
    module = Backwards(name="turn")
    params = {"turn": module.init(jax.random.key(0), jnp.ones((2, 6)))["params"]}

    def apply_fn(params, batch, *, key, train):
        return module.apply({"params": params["turn"]}, batch["x"])

    strategy = make_strategy(name, fields | {"targets": (r"turn/kernel$",), "head": "turn/"})
    extended = shaken(injection.extend(strategy, params, FIRST_KEY))
    batch = {"x": jax.random.normal(OTHER_KEY, (3, 6))}
    found = injection.adapt(strategy, apply_fn)(extended, batch, key=None, train=False)
    merged = injection.merge(strategy, extended)
    np.testing.assert_allclose(found, batch["x"] @ merged["turn"]["kernel"].T, rtol=1e-5, atol=1e-6)
    assert np.abs(found - batch["x"] @ params["turn"]["kernel"].T).max() > 1e-3


def test_two_strategies_on_one_matrix_of_a_plain_function_are_refused():
    strategy = strategy_of("both", "toy")
    params = injection.extend(strategy, toy().params, FIRST_KEY)
    with pytest.raises(UserError, match="changed by another strategy too"):
        injection.adapt(strategy, toy().apply_fn)(params, toy().batch, key=None, train=False)


def test_dora_measures_a_matrix_that_nothing_else_changed():
    fields = {"rank": 2, "use_dora": True}
    injection.extend(make_strategy("lora+ia3", fields), bert().params, FIRST_KEY)
    with pytest.raises(UserError, match="put lora first"):
        injection.extend(make_strategy("ia3+lora", fields), bert().params, FIRST_KEY)


@pytest.mark.parametrize("model_name", mark_rest(("bert", "toy"), ("toy",)))
def test_a_step_of_fewer_layers_computes_less(model_name):
    order = ("head", "none", "one", "upper", "full")
    flops = {which: train(model_name, which)[0].flops for which in order}
    if None in flops.values():
        pytest.skip("this backend does not count operations")
    assert list(flops.values()) == sorted(flops.values())
    assert flops["upper"] == flops["one"] < 0.8 * flops["full"]  # of three layers: the same leaves


@for_every_case
def test_clipping_measures_the_trainable_leaves_alone(model_name, which):
    labels = case(model_name, which).stages[-1]
    params, _ = partition.partition(case(model_name, which).params, labels)
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
                SGD(momentum=0.0), optax.constant_schedule(1.0), wanted,
                weight_decay=0.0, clip_norm=float(clip),
            )  # fmt: skip
            found[factor], _ = tx.update(grads, tx.init(params), params)
        return found

    for factor, updates in clipped(grads).items():
        for update, g in zip(jax.tree.leaves(updates), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(update, -factor * g, rtol=1e-5, atol=1e-7)
