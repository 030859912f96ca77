"""The steps on a model that is not jaxtune's: two dense layers as plain pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core import trees
from jaxtune.core.dropout import same_key
from jaxtune.core.errors import UserError
from jaxtune.core.types import STATISTICS, Mean, WithStatistics
from jaxtune.tasks.classification import batch_metrics
from jaxtune.training.eval_step import make_eval_step, make_predict_step
from jaxtune.training.losses import cross_entropy
from jaxtune.training.optimizers import SGD, make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import partition
from jaxtune.tuning.partition import TRAINABLE

KEEP = {"first": {"kernel": True, "bias": False}, "second": {"kernel": True, "bias": True}}
KEY = jax.random.key(7)
WEIGHT = np.array([1, 1, 1, 0, 0.5, 0, 1, 2], np.float32)  # uneven among 2, 4 and 8 parts


def mlp(params, batch, *, key, train):
    x = jnp.tanh(batch["x"] @ params["first"]["kernel"] + params["first"]["bias"])
    return x @ params["second"]["kernel"] + params["second"]["bias"]


def noisy_mlp(params, batch, *, key, train):
    x = batch["x"]
    if train:
        x = x * jax.random.bernoulli(key, 0.5, x.shape)
    return mlp(params, batch | {"x": x}, key=None, train=train)


def make_params(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "first": {"kernel": draw(5, 4), "bias": draw(4)},
        "second": {"kernel": draw(4, 3), "bias": draw(3)},
    }


def make_batch(weight=WEIGHT, seed=0):
    rng = np.random.default_rng(seed)
    n = len(weight)
    return {
        "x": rng.normal(size=(n, 5)).astype(np.float32),
        "labels": rng.integers(0, 3, n).astype(np.int32),
        "weight": np.asarray(weight, np.float32),
    }


def sgd(rate=1.0, clip_norm=None, weight_decay=0.0):
    labels = jax.tree.map(lambda keep: "all" if keep else None, KEEP)
    return make_optimizer(
        SGD(momentum=0.0),
        optax.constant_schedule(rate),
        labels,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
    )


def start(tx, key=KEY):
    params, frozen = trees.split(make_params(), KEEP)
    return init_state(params, tx, key), frozen


def one_step(batch, apply_fn=mlp, tx=None, **options):
    tx = tx or sgd()
    state, frozen = start(tx)
    return jax.jit(make_train_step(apply_fn, cross_entropy, tx, **options))(state, frozen, batch)


def assert_close(a, b, tolerance=1e-6):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b
    )


def numpy_loss_and_gradient(params, batch):
    """The weighted mean and its gradient in float64, by hand."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x, weight = batch["x"].astype(np.float64), batch["weight"].astype(np.float64)
    hidden = np.tanh(x @ p["first"]["kernel"] + p["first"]["bias"])
    z = hidden @ p["second"]["kernel"] + p["second"]["bias"]
    q = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = -(np.log(q[rows, batch["labels"]]) * weight).sum() / weight.sum()
    q[rows, batch["labels"]] -= 1
    dz = q * (weight / weight.sum())[:, None]
    dh = dz @ p["second"]["kernel"].T * (1 - hidden**2)
    gradient = {
        "first": {"kernel": x.T @ dh, "bias": dh.sum(0)},
        "second": {"kernel": hidden.T @ dz, "bias": dz.sum(0)},
    }
    return loss, gradient


@pytest.mark.parametrize("num_microbatches", [1, 2, 4, 8])
def test_gradient_is_that_of_the_mean_over_all_weights(num_microbatches):
    batch = make_batch()
    state, info = one_step(batch, num_microbatches=num_microbatches)
    loss, gradient = numpy_loss_and_gradient(make_params(), batch)
    gradient, _ = trees.split(gradient, KEEP)
    before, _ = trees.split(make_params(), KEEP)
    assert_close(jax.tree.map(jnp.subtract, before, state.params), gradient)
    assert state.params["first"]["bias"] is None
    np.testing.assert_allclose(info.loss.value, loss, rtol=1e-6)
    np.testing.assert_allclose(info.loss.weight, batch["weight"].sum())
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(info.grad_norm, norm, rtol=1e-6)
    assert int(state.step) == 1


def test_grad_norm_is_reported_before_clipping():
    _, free = one_step(make_batch())
    state, info = one_step(make_batch(), tx=sgd(clip_norm=0.01))
    np.testing.assert_allclose(info.grad_norm, free.grad_norm, rtol=1e-6)
    before, _ = trees.split(make_params(), KEEP)
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, before, state.params))
    np.testing.assert_allclose(moved, 0.01, rtol=1e-3)


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_rows_of_weight_zero_change_nothing(num_microbatches):
    batch = make_batch([1, 1, 1, 1])
    filled = jax.tree.map(lambda a: np.concatenate([a, 100 * a]), batch)
    filled["labels"][4:] = 0
    filled["weight"][4:] = 0
    alone, _ = one_step(batch)
    state, info = one_step(filled, num_microbatches=num_microbatches)
    assert_close(state.params, alone.params)
    assert float(info.loss.weight) == 4.0


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_shards_of_a_named_axis_equal_the_whole_batch(num_microbatches):
    batch = make_batch()
    tx = sgd()
    state, frozen = start(tx)
    step = make_train_step(
        mlp, cross_entropy, tx, num_microbatches=num_microbatches, axis_name="data"
    )
    shards = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), batch)
    # out_axes=None refuses outputs that could differ between the shards.
    over_shards = jax.vmap(step, in_axes=(None, None, 0), out_axes=None, axis_name="data")
    found, info = jax.jit(over_shards)(state, frozen, shards)
    expected, expected_info = one_step(batch)
    assert_close(found.params, expected.params)
    assert_close(info, expected_info)


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_a_batch_of_no_weight_changes_nothing_but_decay(num_microbatches):
    state, info = one_step(
        make_batch(np.zeros(8)),
        tx=sgd(0.5, 1.0, weight_decay=0.1),
        num_microbatches=num_microbatches,
    )
    before, _ = trees.split(make_params(), KEEP)
    for layer in ("first", "second"):
        np.testing.assert_allclose(
            state.params[layer]["kernel"], 0.95 * before[layer]["kernel"], rtol=1e-6
        )
    np.testing.assert_array_equal(state.params["second"]["bias"], before["second"]["bias"])
    assert float(info.grad_norm) == float(info.loss.weight) == 0.0


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_many_steps_are_traced_once(num_microbatches):
    traces = []
    tx = sgd()
    train_step = make_train_step(mlp, cross_entropy, tx, num_microbatches=num_microbatches)

    @jax.jit
    def step(*arguments):
        traces.append(0)
        return train_step(*arguments)

    state, frozen = start(tx)
    for seed in range(5):
        state, _ = step(state, frozen, make_batch(seed=seed))
    fresh, frozen = start(tx)
    step(fresh, frozen, make_batch())
    assert len(traces) == 1
    assert int(state.step) == 5


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(7)], ids=["typed", "raw"])
def test_donating_the_state_leaves_the_arrays_of_the_caller(key):
    tx = make_optimizer("adamw", optax.constant_schedule(0.1), jax.tree.map(str, KEEP))
    everything = make_params()
    params, frozen = trees.split(everything, jax.tree.map(lambda _: True, KEEP))
    state = init_state(params, tx, key)
    step = jax.jit(make_train_step(noisy_mlp, cross_entropy, tx), donate_argnums=0)
    after, _ = step(state, frozen, make_batch())
    if not any(leaf.is_deleted() for leaf in jax.tree.leaves(state)):
        pytest.skip("this backend does not donate")
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((everything, params, key)))
    again, _ = step(init_state(params, tx, key), frozen, make_batch())
    jax.tree.map(np.testing.assert_array_equal, after.params, again.params)


def test_frozen_parameters_outlive_a_donated_state():
    tx = sgd()
    state, frozen = start(tx)
    step = jax.jit(make_train_step(mlp, cross_entropy, tx), donate_argnums=0)
    for _ in range(3):
        state, _ = step(state, frozen, make_batch())
    np.testing.assert_array_equal(frozen["first"]["bias"], make_params()["first"]["bias"])


def losses(seed, count, **options):
    """Losses of a model that does not change, on the same batch again and again."""
    tx = sgd(rate=0.0)
    state, frozen = start(tx, jax.random.key(seed))
    step = jax.jit(make_train_step(noisy_mlp, cross_entropy, tx, **options))
    found = []
    for _ in range(count):
        state, info = step(state, frozen, make_batch())
        found.append(float(info.loss.total))
    return found


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_dropout_is_a_function_of_seed_and_step(num_microbatches):
    found = losses(0, 4, num_microbatches=num_microbatches)
    assert len(set(found)) == 4
    assert losses(0, 4, num_microbatches=num_microbatches) == found
    assert not set(losses(1, 4, num_microbatches=num_microbatches)) & set(found)


def test_the_root_key_is_never_advanced():
    tx = sgd()
    state, frozen = start(tx)
    after, _ = make_train_step(mlp, cross_entropy, tx)(state, frozen, make_batch())
    assert jnp.array_equal(jax.random.key_data(after.key), jax.random.key_data(KEY))


def noise(params, batch, *, key, train):
    del train
    return jnp.broadcast_to(jax.random.normal(key), batch["sign"].shape)[:, None] * params


def signed_sum(outputs, batch):
    return Mean(jnp.sum(outputs[:, 0] * batch["sign"]), jnp.sum(batch["weight"]))


SIGNS = {"sign": np.array([1, 1, -1, -1], np.float32), "weight": np.ones(4, np.float32)}


def test_every_microbatch_draws_its_own_noise():
    tx = optax.sgd(0.0)
    step = make_train_step(noise, signed_sum, tx, num_microbatches=2)
    _, info = step(init_state(jnp.ones(()), tx, KEY), None, SIGNS)
    assert abs(float(info.loss.total)) > 1e-3  # equal noise would cancel


def test_every_shard_draws_its_own_noise():
    tx = optax.sgd(0.0)
    step = make_train_step(noise, signed_sum, tx, axis_name="data")
    shards = jax.tree.map(lambda a: a.reshape(2, 2), SIGNS)
    over_shards = jax.vmap(step, in_axes=(None, None, 0), out_axes=None, axis_name="data")
    _, info = over_shards(init_state(jnp.ones(()), tx, KEY), None, shards)
    assert abs(float(info.loss.total)) > 1e-3  # equal noise would cancel


def test_parts_may_have_the_key_of_the_whole():
    """For models whose noise does not follow from the key and the place in the batch alone."""
    tx = optax.sgd(0.0)
    state = init_state(jnp.ones(()), tx, KEY)
    step = make_train_step(
        noise, signed_sum, tx, num_microbatches=2, axis_name="data", part_key=same_key
    )
    shards = jax.tree.map(lambda a: np.tile(a, 2).reshape(2, 4), SIGNS)
    over_shards = jax.vmap(step, in_axes=(None, None, 0), out_axes=None, axis_name="data")
    _, info = over_shards(state, None, shards)
    assert float(info.loss.total) == 0  # the parts cancel


@pytest.mark.parametrize("num_microbatches", [3, 5, 16])
def test_microbatches_that_do_not_divide_the_batch_are_refused(num_microbatches):
    message = f"{num_microbatches} microbatches.*8 rows"
    with pytest.raises(UserError, match=message):
        one_step(make_batch(), num_microbatches=num_microbatches)


def test_bfloat16_frozen_parameters_stay_so():
    tx = sgd()
    state, frozen = start(tx)
    frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), frozen)
    state, _ = jax.jit(make_train_step(mlp, cross_entropy, tx))(state, frozen, make_batch())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("n", [1, 7, 8, 19])
def test_metrics_of_ragged_batches_add_up_to_the_mean(n):
    whole = make_batch(np.ones(n), seed=n)
    params, frozen = trees.split(make_params(), KEEP)
    step = jax.jit(make_eval_step(noisy_mlp, batch_metrics))
    sums, rows = None, []
    for first in range(0, n, 8):
        part = {name: a[first : first + 8] for name, a in whole.items()}
        count = len(part["weight"])
        filled = jax.tree.map(lambda a: np.concatenate([a, np.repeat(a[:1], 8, 0)])[:8], part)
        filled["weight"][count:] = 0
        metrics, outputs = step(params, frozen, filled)
        sums = metrics if sums is None else jax.tree.map(jnp.add, sums, metrics)
        rows.append(outputs[:count])
    outputs = np.concatenate(rows)
    loss, _ = numpy_loss_and_gradient(make_params(), whole)
    np.testing.assert_allclose(sums["loss"].value, loss, rtol=1e-6)
    assert float(sums["accuracy"].value) == np.float32(
        (outputs.argmax(1) == whole["labels"]).sum() / np.float32(n)
    )
    predictions = make_predict_step(noisy_mlp)(params, frozen, whole)
    assert_close(predictions, outputs)


@pytest.mark.parametrize("num_microbatches", [1, 4])
def test_a_scalar_loss_is_the_mean_over_the_rows(num_microbatches):
    def scalar_loss(outputs, batch):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"]).mean()

    batch = make_batch(np.ones(8))
    loss, gradient = numpy_loss_and_gradient(make_params(), batch)
    del batch["weight"]
    tx = sgd()
    state, frozen = start(tx)
    step = make_train_step(mlp, scalar_loss, tx, num_microbatches=num_microbatches)
    state, info = step(state, frozen, batch)
    before, _ = trees.split(make_params(), KEEP)
    assert_close(
        jax.tree.map(jnp.subtract, before, state.params), trees.split(gradient, KEEP)[0], 2e-6
    )
    np.testing.assert_allclose(info.loss.value, loss, rtol=1e-6)
    assert float(info.loss.weight) == 8


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda losses: losses, r"float32\[8\]"),
        (lambda losses: (losses.mean(), {"accuracy": losses[0]}), "accuracy"),
        (lambda losses: {"loss": losses.mean()}, r"'loss': 'float32\[\]'"),
        (lambda losses: Mean(losses, jnp.ones(8)), r"Mean\(total='float32\[8\]'"),
        (lambda losses: None, "None"),
        (lambda losses: 0.5, r"float'>\[\]"),
    ],
)
def test_a_loss_that_gives_something_else_says_what_is_expected(wrong, found):
    def loss_fn(outputs, batch):
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"])
        return wrong(losses)

    tx = sgd()
    state, frozen = start(tx)
    with pytest.raises(UserError, match=rf"(?s){found}.*expected Mean\(total, weight\)"):
        make_train_step(mlp, loss_fn, tx)(state, frozen, make_batch())


def test_training_needs_labels_and_prediction_does_not():
    batch = {name: a for name, a in make_batch().items() if name != "labels"}
    with pytest.raises(KeyError, match="labels"):
        one_step(batch)
    params, frozen = trees.split(make_params(), KEEP)
    assert make_predict_step(mlp)(params, frozen, batch).shape == (8, 3)


def centred(params, batch, *, key, train):
    """An `mlp` on inputs without their mean: of the batch in training, else the running one."""
    mean = batch["x"].mean(axis=0) if train else params["centre"]["mean"]
    outputs = mlp(params, batch | {"x": batch["x"] - mean}, key=None, train=train)
    moved = 0.9 * params["centre"]["mean"] + 0.1 * mean
    return WithStatistics(outputs, {"centre": {"mean": moved}}) if train else outputs


@pytest.mark.parametrize("num_microbatches", [1, 4])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_running_statistics_are_the_model_s_own(name, num_microbatches):
    """No gradient, moment, decay or share in the clip norm; over microbatches, their mean."""
    params = make_params() | {"centre": {"mean": jnp.full(5, 3.0)}}
    everything = jax.tree.map(lambda _: TRAINABLE, params)
    labels = partition.set_statistics(everything, "centre/mean$", trained=True)
    assert labels["centre"] == {"mean": STATISTICS}
    tx = make_optimizer(
        name, optax.constant_schedule(0.1), labels, weight_decay=0.5, clip_norm=0.01
    )
    state, batch = init_state(params, tx, KEY), make_batch()
    holes = jax.tree.map(lambda _: None, params)
    step = make_train_step(centred, cross_entropy, tx, num_microbatches=num_microbatches)
    for count in (1, 2):
        state, _ = step(state, holes, batch)
        expected = 0.9**count * 3.0 + (1 - 0.9**count) * batch["x"].mean(axis=0)
        np.testing.assert_allclose(state.params["centre"]["mean"], expected, rtol=1e-5, atol=1e-6)
    assert np.abs(state.params["first"]["kernel"] - params["first"]["kernel"]).min() > 0
    per_leaf = {"adamw": 2, "sgd": 1}[name]
    kept = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in kept) == per_leaf * trees.count(make_params())


def test_frozen_statistics_stay():
    params = make_params() | {"centre": {"mean": jnp.full(5, 3.0)}}
    everything = jax.tree.map(lambda _: TRAINABLE, params)
    labels = partition.set_statistics(everything, "centre/mean$", trained=False)
    trainable, frozen = partition.partition(params, labels)
    labels = partition.trainable_labels(labels)
    tx = make_optimizer("adamw", optax.constant_schedule(0.1), labels)
    state = init_state(trainable, tx, KEY)
    state, _ = make_train_step(centred, cross_entropy, tx)(state, frozen, make_batch())
    assert state.params["centre"] == {"mean": None}


def test_the_gradients_are_scaled_by_a_number_out_of_an_array():
    """Else XLA for a GPU has no array that the updates share, and makes kernels for each leaf."""
    tx = optax.sgd(0.1)
    step, params = make_train_step(mlp, cross_entropy, tx), make_params()
    state, nothing = init_state(params, tx, KEY), jax.tree.map(lambda _: None, params)
    program = jax.jit(step).lower(state, nothing, make_batch()).as_text()
    (barrier,) = [line for line in program.splitlines() if "optimization_barrier" in line]
    assert barrier.endswith(": tensor<2xf32>")
