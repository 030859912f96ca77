"""A loss of the whole batch in parts and on devices: the loss and gradients of the whole."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core import dropout, paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import WithStatistics
from jaxtune.training.group_losses import Sizes, make_cosent, make_ranking
from jaxtune.training.joint_sums import make_joint_sums
from jaxtune.training.state import init_state
from jaxtune.training.step import make_update, sum_over

WIDTH, TEXTS = 5, 24


def model(params, batch, *, key, train):
    """Two layers, with dropout that belongs to the texts."""
    x = jnp.tanh(batch["x"] @ params["inner"])
    ids = dropout.noise_ids_of(batch["example_ids"], 0)
    x = dropout.drop_features(x, 0.3, key, ids)
    return x @ params["outer"]


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(TEXTS, WIDTH)).astype("f"),
        "example_ids": np.arange(100, 100 + TEXTS, dtype=np.int32),
        "group_ids": (np.arange(TEXTS) // 3).astype(np.int32),
        "members": (np.arange(TEXTS) % 3).astype(np.int32),
        "weight": (np.arange(TEXTS) < 18).astype("f"),  # the rest is filling
    }
    order = rng.permutation(TEXTS)  # so that a part has texts of many groups
    params = {
        "inner": rng.normal(size=(WIDTH, 8)).astype("f"),
        "outer": rng.normal(size=(8, 6)).astype("f"),
    }
    return params, {name: values[order] for name, values in batch.items()}


def in_float64(params, batch, key):
    """The loss of the batch by hand, as a function of the parameters."""
    kept = np.asarray(
        dropout.keep_mask(
            key,
            0.3,
            dropout.noise_ids_of(batch["example_ids"], 0)[:, None],
            jnp.arange(8, dtype=jnp.uint32),
        )
    )
    x = np.tanh(batch["x"].astype(float) @ params["inner"].astype(float)) * kept / 0.7
    x = x @ params["outer"].astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    real = batch["weight"] > 0
    losses = []
    for group in sorted({*batch["group_ids"][real]}):
        own = {
            int(m): x[i]
            for i, m in enumerate(batch["members"])
            if real[i] and batch["group_ids"][i] == group
        }
        documents = x[real & (batch["members"] > 0)]
        z = 20 * documents @ own[0]
        losses.append(np.log(np.exp(z).sum()) - 20 * own[1] @ own[0])
    return np.array(losses)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_microbatches_have_the_loss_and_gradient_of_the_whole(count, given):
    params, batch = given
    key = jax.random.key(3)
    loss_fn = make_ranking(Sizes(3, 3))
    sums = jax.jit(make_joint_sums(model, loss_fn, count, dropout.same_key))
    found = sums(params, jax.tree.map(lambda _: None, params), batch, key)
    by_hand = in_float64(params, batch, key)
    assert float(found.loss.weight) == len(by_hand) == 6
    assert float(found.loss.total) == pytest.approx(by_hand.sum(), rel=1e-5)
    step = 1e-4
    for name, place in [("inner", (2, 3)), ("outer", (4, 1)), ("inner", (0, 7))]:
        moved = [{k: v.astype(float) for k, v in params.items()} for _ in range(2)]
        moved[0][name][place] += step
        moved[1][name][place] -= step
        up, down = (in_float64(p, batch, key).sum() for p in moved)
        wanted = (up - down) / (2 * step)
        assert float(found.grads[name][place]) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("make", [make_ranking, make_cosent])
def test_devices_and_microbatches_have_the_sums_of_one_part(make, given):
    params, batch = given
    labels = np.sin(batch["group_ids"]).astype("f")
    batch = batch | ({"labels": labels} if make is make_cosent else {})
    loss_fn, no_holes = make(Sizes(3, 3)), jax.tree.map(lambda _: None, params)
    make_sums = partial(make_joint_sums, model, loss_fn, part_key=dropout.same_key)
    key = jax.random.key(1)
    whole = jax.jit(make_sums())(params, no_holes, batch, key)

    def on_devices(count):
        sums = sum_over(make_sums(num_microbatches=2), "data", dropout.same_key)
        shards = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
        run = jax.vmap(sums, (None, None, 0, None), None, axis_name="data")
        return jax.jit(run)(params, no_holes, shards, key)

    parts = jax.jit(make_sums(num_microbatches=4))(params, no_holes, batch, key)
    for found in (parts, on_devices(3)):
        np.testing.assert_allclose(found.loss.total, whole.loss.total, rtol=1e-5)
        np.testing.assert_allclose(found.loss.weight, 6, rtol=1e-6)
        for name, grad in paths.flatten(found.grads).items():
            wanted = paths.flatten(whole.grads)[name]
            np.testing.assert_allclose(grad, wanted, atol=1e-5 * np.abs(wanted).max())


def test_a_step_takes_these_sums(given):
    params, batch = given
    sums = make_joint_sums(model, make_ranking(Sizes(3, 3)), 2, dropout.same_key)
    tx = optax.sgd(0.1)
    step = jax.jit(make_update(sums, tx))
    state, info = step(
        init_state(params, tx, jax.random.key(0)), {"inner": None, "outer": None}, batch
    )
    later, after = step(state, {"inner": None, "outer": None}, batch)
    assert float(after.loss.value) < float(info.loss.value)
    assert int(later.step) == 2


def test_what_cannot_be_joint_is_refused(given):
    params, batch = given
    no_holes = jax.tree.map(lambda _: None, params)

    def with_statistics(params, batch, *, key, train):
        return WithStatistics(model(params, batch, key=key, train=train), {})

    sums = make_joint_sums(with_statistics, make_ranking(Sizes(3, 3)))
    with pytest.raises(UserError, match="running statistics"):
        sums(params, no_holes, batch, jax.random.key(0))
    sums = make_joint_sums(model, make_ranking(Sizes(3, 3)), 7)
    with pytest.raises(UserError, match="7 microbatches do not divide a batch of 24 rows"):
        sums(params, no_holes, batch, jax.random.key(0))


def test_a_batch_of_many_parts_needs_the_memory_of_one():
    """Beside a vector of each text, and their products."""

    def wide(params, batch, *, key, train):
        x = batch["x"]
        for _ in range(4):
            x = jnp.tanh(x @ params["in"]) @ params["out"]  # [b 64] -> [b 4096] -> [b 64]
        return x

    def bytes_of(texts, count):
        fields = {
            name: jax.ShapeDtypeStruct((texts,), jnp.int32) for name in ("group_ids", "members")
        }
        fields |= {"weight": jax.ShapeDtypeStruct((texts,), jnp.float32)}
        fields |= {"x": jax.ShapeDtypeStruct((texts, 64), jnp.float32)}
        params = {"in": jax.ShapeDtypeStruct((64, 4096), jnp.float32)}
        params["out"] = jax.ShapeDtypeStruct((4096, 64), jnp.float32)
        sums = make_joint_sums(wide, make_ranking(Sizes(2, 2)), count, dropout.same_key)
        holes = {"in": None, "out": None}
        lowered = jax.jit(sums).lower(params, holes, fields, jax.random.key(0))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    one, many, whole = bytes_of(64, 1), bytes_of(1024, 16), bytes_of(1024, 1)
    assert many < 1.6 * one  # of which the vectors and products are a third here
    assert whole > 8 * one
