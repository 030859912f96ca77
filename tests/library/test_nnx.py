"""`from_nnx` against the module itself, called as its own library calls it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import WithStatistics
from jaxtune.training.from_nnx import from_nnx
from jaxtune.training.losses import cross_entropy
from jaxtune.training.optimizers import make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import partition
from jaxtune.tuning.selective import Full, Head

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
BATCH = {
    "x": RNG.normal(size=(8, 3)).astype(np.float32),
    "labels": RNG.integers(0, 2, 8).astype(np.int32),
}


class Buffer(nnx.Variable):
    """Neither trained nor changed."""


class Net(nnx.Module, pytree=False):
    """Of everything something: plain lists and dicts, a tied layer, noise, statistics, buffers."""

    def __init__(self, rate=0.5):
        rngs = nnx.Rngs(0)
        self.layers = [nnx.Linear(3, 3, rngs=rngs) for _ in range(2)]
        self.sides = {"left": nnx.Linear(3, 3, use_bias=False, rngs=rngs)}
        self.tied = self.layers[1]
        self.norm = nnx.BatchNorm(3, momentum=0.8, rngs=rngs)
        self.noise = [nnx.Dropout(rate, rngs=rngs) for _ in range(2)]
        self.shift, self.raw = Buffer(jnp.full(3, 0.5)), jnp.full(3, 0.25)
        self.several = nnx.Param({"a": jnp.ones(3), "b": jnp.zeros(3)})
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x)) + self.several.get_value()["a"]
        x = self.sides["left"](self.tied(x)) + self.shift[...] + self.raw
        first, second = self.noise
        return self.head(second(jnp.ones_like(x)) * first(self.norm(x)))


def split(module, **kwargs):
    return from_nnx(module, lambda module, batch: module(batch["x"]), **kwargs)


def test_leaves_are_called_by_attributes_and_places():
    _, params, statistics = split(Net())
    assert set(paths.leaf_names(params)) == {
        *(f"layers/{i}/{kind}" for i in range(2) for kind in ("kernel", "bias")),
        *("sides/left/kernel", "head/kernel", "head/bias", "several/a", "several/b"),
        *(f"norm/{kind}" for kind in ("scale", "bias", "mean", "var")),
    }
    assert statistics == "^(?:norm/mean|norm/var)$"
    labels = partition.set_statistics(partition.label(Full(), params), statistics, trained=True)
    assert [labels["norm"][kind] for kind in ("mean", "scale")] == ["statistics", "trainable"]


def test_evaluation_is_the_module_in_eval_mode():
    apply_fn, params, _ = split(Net())
    module = Net()
    module.eval()
    for function in (apply_fn, jax.jit(apply_fn, static_argnames="train")):
        found = function(params, BATCH, key=None, train=False)
        np.testing.assert_allclose(found, module(BATCH["x"]), rtol=1e-5, atol=1e-6)


def test_training_is_the_module_in_train_mode():
    """Without noise the outputs and the new statistics are the module's own."""
    apply_fn, params, _ = split(Net(rate=0.0))
    module = Net(rate=0.0)
    module.train()
    found = apply_fn(params, BATCH, key=KEY, train=True)
    assert isinstance(found, WithStatistics)
    np.testing.assert_allclose(found.outputs, module(BATCH["x"]), rtol=1e-5, atol=1e-6)
    for kind in ("mean", "var"):
        wanted = getattr(module.norm, kind)[...]
        np.testing.assert_allclose(found.statistics["norm"][kind], wanted, rtol=1e-5, atol=1e-6)
        assert np.abs(wanted - params["norm"][kind]).max() > 1e-3


def test_noise_follows_from_the_key_and_differs_by_layer():
    class Noisy(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.first, self.second = (nnx.Dropout(0.5, rngs=rngs) for _ in range(2))
            self.factor = nnx.Param(jnp.ones(()))

        def __call__(self, x):
            return jnp.stack([self.first(x), self.second(x)]) * self.factor[...]

    apply_fn, params, statistics = split(Noisy())
    batch = {"x": jnp.ones((40, 50))}
    first, again, other = (
        apply_fn(params, batch, key=jax.random.key(seed), train=True) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    kept = np.asarray(first) != 0
    assert statistics is None
    assert set(np.unique(first)) == {0.0, 2.0}
    assert abs(kept.mean() - 0.5) < 0.03
    for one, two in ((kept[0], kept[1]), (kept, np.asarray(other) != 0)):
        assert abs((one == two).mean() - 0.5) < 0.05  # independent
    with pytest.raises(UserError, match="Noisy draws random numbers: training needs a key"):
        apply_fn(params, batch, key=None, train=True)
    outputs = apply_fn(params, batch, key=None, train=False)
    np.testing.assert_array_equal(outputs, np.ones((2, 40, 50)))


def test_the_module_is_left_alone_and_not_looked_at_again():
    module = Net()
    apply_fn, params, _ = split(module)
    before = jax.device_get(apply_fn(params, BATCH, key=None, train=False))
    state = jax.device_get(jax.tree.leaves(nnx.state(module, (nnx.Param, nnx.BatchStat))))
    apply_fn(jax.tree.map(jnp.zeros_like, params), BATCH, key=KEY, train=True)
    after = jax.tree.leaves(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    jax.tree.map(np.testing.assert_array_equal, state, after)
    module.head.kernel[...] = jnp.zeros((3, 2))
    np.testing.assert_array_equal(apply_fn(params, BATCH, key=None, train=False), before)


@pytest.mark.parametrize("strategy", [Full(), Head("^head/")])
def test_a_step_moves_parameters_by_gradients_and_statistics_by_batches(strategy):
    """Against value_and_grad of the module by nnx."""
    apply_fn, params, statistics = split(Net(rate=0.0))
    labels = partition.set_statistics(partition.label(strategy, params), statistics, trained=True)
    trainable, frozen = partition.partition(params, labels)
    tx = make_optimizer(optax.identity(), 0.1, labels, weight_decay=0.5, clip_norm=None)
    step = jax.jit(make_train_step(apply_fn, cross_entropy, tx))
    state, info = step(init_state(trainable, tx, KEY), frozen, BATCH)

    module = Net(rate=0.0)
    module.train()

    def mean_loss(module):
        logits = module(BATCH["x"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["labels"]).mean()

    loss, grads = nnx.value_and_grad(mean_loss)(module)
    grads = paths.flatten(nnx.to_pure_dict(grads))
    moved = paths.flatten(nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)))
    np.testing.assert_allclose(info.loss.value, loss, rtol=1e-5)
    flat = paths.flatten(params)
    after = paths.flatten(state.params)
    assert after.keys() == {n for n, label in paths.flatten(labels).items() if label != "frozen"}
    for name, leaf in after.items():
        if name in moved:
            wanted = moved[name]
        else:
            decay = 0.5 * flat[name] if name.endswith("kernel") or "several" in name else 0.0
            wanted = flat[name] - 0.1 * (grads[name] + decay)
        np.testing.assert_allclose(leaf, wanted, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_call_that_changes_something_else_says_so():
    class Counter(nnx.Module):
        def __init__(self):
            self.factor, self.count = nnx.Param(jnp.ones(())), Buffer(jnp.zeros(()))

        def __call__(self, x):
            self.count[...] += 1
            return x * self.factor[...]

    apply_fn, params, _ = split(Counter())
    with pytest.raises(UserError, match="changes 'count' in its call, and the change"):
        apply_fn(params, BATCH, key=None, train=False)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Dense(3), "given Dense: expected a flax.nnx.Module"),
        (nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "Dropout has no nnx.Param"),
    ],
)
def test_what_is_no_module_with_parameters_is_refused(module, message):
    with pytest.raises(UserError, match=message):
        from_nnx(module)


def test_the_default_call_gives_the_module_the_batch():
    apply_fn, params, _ = from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    found = apply_fn(params, BATCH["x"], key=None, train=False)
    np.testing.assert_allclose(found, BATCH["x"] @ params["kernel"] + params["bias"], rtol=1e-5)
