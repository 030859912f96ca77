"""Added parameters are known by where they stand, whatever a model does to them on the way."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.tuning import injection
from jaxtune.tuning.bottleneck import BottleneckAdapter
from jaxtune.tuning.extended import Extended, insert, rebuild
from jaxtune.tuning.ia3 import IA3
from jaxtune.tuning.lora import Lora
from jaxtune.tuning.union import Union

KEY, X = jax.random.key(0), jax.random.normal(jax.random.key(1), (3, 4))
LORA = Lora(2, targets=(r"kernel$",), head=None)
TUNED = {
    "lora": LORA,
    "dora": Lora(2, targets=(r"kernel$",), use_dora=True, head=None),
    "ia3": IA3((r"dense_0/kernel$",), (r"dense_1/kernel$",), head=None),
    "both": IA3((r"dense_0/kernel$",), (r"dense_0/kernel$",), head=None),
    "union": Union((LORA, IA3((r"dense_0/kernel$",), (), head=None))),
    "bottleneck": BottleneckAdapter(bottleneck_size=2, targets=(r"dense_0/kernel$",), head=None),
}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = jnp.tanh(nn.Dense(4, name=f"dense_{i}")(x))
        return x


PARAMS = Net().init(KEY, X)["params"]


def shaken(params):
    """Noise on every leaf, so that no added one is at its start."""

    def shake(name, leaf):
        return leaf + 0.3 * jax.random.normal(injection.key_of(KEY, name), leaf.shape)

    return paths.map_named(shake, params)


def tuned(strategy, params):
    """Parameters with noise."""
    return shaken(injection.extend(strategy, params, KEY))


def run(strategy, apply_fn, params):
    return injection.adapt(strategy, apply_fn)(params, {"x": X}, key=None, train=False)


def plain(params, batch, *, key, train):
    return Net().apply({"params": params}, batch["x"])


def doubled(params, batch, *, key, train):
    """Other arrays than it was given, of the same values."""
    return plain(jax.tree.map(lambda leaf: 2 * leaf - leaf, params), batch, key=key, train=train)


def jitted(params, batch, *, key, train):
    return jax.jit(lambda tree: plain(tree, batch, key=key, train=train))(params)


def checkpointed(params, batch, *, key, train):
    return jax.checkpoint(lambda tree: plain(tree, batch, key=key, train=train))(params)


def no_fold(params, missed):
    raise AssertionError(f"{missed} were not found beside the model")


@pytest.mark.parametrize("apply_fn", [doubled, jitted, checkpointed])
@pytest.mark.parametrize("name", TUNED)
def test_a_model_may_hand_on_other_arrays_than_it_was_given(name, apply_fn, monkeypatch):
    params = tuned(TUNED[name], PARAMS)
    wanted = run(TUNED[name], plain, params)
    original = injection.intercept
    monkeypatch.setattr(  # the terms stand beside the matrices, and are not merged into them
        injection, "intercept", lambda *a, fold=None, **k: original(*a, fold=no_fold, **k)
    )
    np.testing.assert_allclose(run(TUNED[name], apply_fn, params), wanted, atol=1e-6)
    assert np.abs(wanted - Net().apply({"params": PARAMS}, X)).max() > 1e-2


@pytest.mark.parametrize("name", TUNED)
def test_a_model_may_cast_its_parameters(name):
    def cast(params, batch, *, key, train):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        return Net().apply({"params": params}, batch["x"].astype(jnp.bfloat16))

    params = tuned(TUNED[name], PARAMS)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def step(params):
        outputs = run(TUNED[name], cast, params)
        return outputs.astype(jnp.float32).sum(), outputs

    (_, found), gradient = step(params)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.astype(jnp.float32), run(TUNED[name], plain, params), atol=0.05
    )
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def two_towers(params, batch, *, key, train, cast=lambda tree: tree):
    question, answer = (plain(cast(params[side]), batch, key=key, train=train) for side in "qa")
    return question * answer


TOWERS = {"q": PARAMS, "a": shaken(PARAMS)}
COPY = functools.partial(jax.tree.map, lambda leaf: 2 * leaf - leaf)


def by_towers(strategy, params):
    """Each tower by itself."""
    question, answer = (run(strategy, plain, params[side]) for side in "qa")
    return question * answer


@pytest.mark.parametrize("name", TUNED)
def test_two_towers_of_the_same_names_are_told_apart(name):
    params = tuned(TUNED[name], TOWERS)
    found = run(TUNED[name], two_towers, params)
    np.testing.assert_allclose(found, by_towers(TUNED[name], params), atol=1e-6)


@pytest.mark.parametrize("name", ["lora", "dora", "ia3"])
def test_towers_of_other_arrays_are_merged(name):
    """Which of the two a module has is not known, and no guess is made."""
    params = tuned(TUNED[name], TOWERS)
    found = run(TUNED[name], functools.partial(two_towers, cast=COPY), params)
    np.testing.assert_allclose(found, by_towers(TUNED[name], params), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_merged_says_that_the_towers_are_alike():
    strategy = TUNED["bottleneck"]
    with pytest.raises(UserError, match=r"leaves 8 of 8 added parameters unused.*told by its path"):
        run(strategy, functools.partial(two_towers, cast=COPY), tuned(strategy, TOWERS))


def test_a_matrix_beside_a_module_of_the_same_name_is_not_taken_for_the_modules():
    """The one is used by a Dense on its own, the other by a plain product."""
    dense = nn.Dense(4, use_bias=False)
    params = {"first": {"kernel": jnp.eye(4)}, "second": {"kernel": 2 * jnp.eye(4)}}

    def apply_fn(params, batch, *, key, train):
        params = COPY(params)
        return dense.apply({"params": params["first"]}, batch["x"]) @ params["second"]["kernel"]

    extended = tuned(LORA, params)
    merged = injection.merge(LORA, extended)
    wanted = X @ merged["first"]["kernel"] @ merged["second"]["kernel"]
    np.testing.assert_allclose(run(LORA, apply_fn, extended), wanted, rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """One layer, called twice."""

    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(4, name="dense_0")
        return dense(jnp.tanh(dense(x)))


@pytest.mark.parametrize("name", ["lora", "dora", "bottleneck"])
def test_a_module_that_is_called_twice_is_edited_twice(name):
    strategy = TUNED[name]
    extended = tuned(strategy, {"dense_0": PARAMS["dense_0"]})

    def once(params, batch, *, key, train):
        return nn.Dense(4).apply({"params": params["dense_0"]}, batch["x"])

    one = injection.adapt(strategy, once)
    wanted = one(extended, {"x": jnp.tanh(run(strategy, once, extended))}, key=None, train=False)
    found = run(
        strategy,
        lambda params, batch, *, key, train: Shared().apply({"params": params}, batch["x"]),
        extended,
    )
    np.testing.assert_allclose(found, wanted, atol=1e-6)


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(nn.Dense(4, name="dense_0")(x)), None


def scanned(axes):
    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            lift = {"variable_axes": {"params": 0}} if axes else {"variable_broadcast": "params"}
            scan = nn.scan(Body, length=3, split_rngs={"params": axes}, **lift)
            return scan(name="layers")(x, None)[0]

    def apply_fn(params, batch, *, key, train):
        return Scanned().apply({"params": params}, batch["x"])

    return Scanned().init(KEY, X)["params"], apply_fn


@pytest.mark.parametrize("name", ["lora", "dora", "bottleneck"])
def test_a_layer_that_a_scan_repeats_has_one_term(name, monkeypatch):
    params, apply_fn = scanned(axes=False)
    strategy = TUNED[name]
    extended = tuned(strategy, params)

    def unrolled(params, batch, *, key, train):
        x = batch["x"]
        for _ in range(3):
            x = jnp.tanh(nn.Dense(4).apply({"params": params["layers"]["dense_0"]}, x))
        return x

    wanted = run(strategy, unrolled, extended)
    original = injection.intercept
    monkeypatch.setattr(
        injection, "intercept", lambda *a, fold=None, **k: original(*a, fold=no_fold, **k)
    )
    np.testing.assert_allclose(run(strategy, apply_fn, extended), wanted, rtol=1e-5, atol=1e-6)


def test_the_stacked_layers_of_a_scan_are_refused():
    params, _ = scanned(axes=True)
    with pytest.raises(UserError, match=r"is \[3, 4, 4\]: expected a matrix, not the stacked"):
        injection.extend(LORA, params, KEY)


class Pair(NamedTuple):
    first: object
    second: object


TREES = {
    "list": [jnp.ones((3, 2)), [jnp.ones(2)]],
    "tuple": Pair(jnp.ones((3, 2)), {"w": jnp.ones((2, 2))}),
    "numbers": {0: jnp.ones((3, 2)), 1: jnp.ones(2)},
    "slashes": {"a/b": {"w": jnp.ones((3, 2))}, "c": jnp.ones(2)},
    "hole": {"a": None, "b": jnp.ones((3, 2))},
}


@pytest.mark.parametrize("which", TREES)
def test_a_tree_without_a_place_for_more_leaves_keeps_names_and_comes_back(which):
    tree = TREES[which]
    name = paths.leaf_names(tree)[0]
    extended = insert(tree, {f"{name}_new": jnp.zeros(1)})
    assert isinstance(extended, Extended)
    assert paths.leaf_names(extended) == [*paths.leaf_names(tree), f"{name}_new"]
    more = insert(extended, {"top/other": jnp.zeros(2)})
    assert paths.leaf_names(more)[-2:] == [f"{name}_new", "top/other"]
    flat = paths.flatten(more)
    fewer = rebuild(more, {n: x for n, x in flat.items() if n != f"{name}_new"})
    assert paths.leaf_names(fewer) == [*paths.leaf_names(tree), "top/other"]
    back = rebuild(fewer, {n: 2 * flat[n] for n in paths.leaf_names(tree)})
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(2 * a, b), tree, back)
    shapes = jax.eval_shape(jax.jit(lambda x: x), more)
    assert jax.tree.structure(shapes) == jax.tree.structure(more)


@pytest.mark.parametrize("tree", [{"a": {"w": jnp.ones(2)}}, [jnp.ones(2)]])
def test_a_name_that_is_taken_is_refused(tree):
    (name,) = paths.leaf_names(tree)
    for taken in (name, f"{name}/more", name.split("/")[0]):
        with pytest.raises(UserError, match="cannot be added to the parameters, which have"):
            insert(tree, {taken: jnp.ones(1)})


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(UserError, match="two parameters are called 'a/b'"):
        paths.flatten({"a/b": 1, "a": {"b": 2}})


def test_lora_with_dropout_needs_modules():
    strategy = Lora(2, dropout=0.1, targets=("0$",), head=None)
    params = injection.extend(strategy, [jnp.eye(4)], KEY)
    with pytest.raises(UserError, match="dropout needs targets that are kernels of Linen Dense"):
        run(strategy, lambda params, batch, *, key, train: batch["x"] @ params[0], params)


def test_bottlenecks_need_modules_too():
    strategy = BottleneckAdapter(targets=("w$",), head=None)
    params = injection.extend(strategy, Pair(jnp.eye(4), {"w": jnp.eye(4)}), KEY)
    with pytest.raises(UserError, match="expected them to be in Linen modules"):
        run(strategy, lambda params, batch, *, key, train: batch["x"], params)


def test_a_function_may_go_over_all_leaves_of_its_dict():
    """It fails on the added ones, and gets the merged ones alone."""

    def apply_fn(params, batch, *, key, train):
        x = batch["x"]
        for matrix in params.values():
            x = x @ matrix
        return x

    strategy = Lora(2, targets=("^w1$",), head=None)
    extended = tuned(strategy, {"w0": 1.5 * jnp.eye(4), "w1": jnp.ones((4, 3))})
    assert list(extended) == ["w0", "w1", "w1_lora_a", "w1_lora_b"]
    merged = injection.merge(strategy, extended)
    wanted = X @ merged["w0"] @ merged["w1"]
    np.testing.assert_allclose(run(strategy, apply_fn, extended), wanted, rtol=1e-4, atol=1e-5)


def test_a_mistake_in_the_model_is_told_as_it_is():
    def wrong(params, batch, *, key, train):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(LORA, wrong, tuned(LORA, PARAMS))
