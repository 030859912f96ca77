"""Numbers that are not finite: found before anything is saved over, and named with their rows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core.errors import UserError
from jaxtune.core.types import Mean
from jaxtune.run import values
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, every
from jaxtune.run.train import train
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step, skip_nonfinite

TX = optax.adam(0.1)


def apply_fn(params, batch, *, key, train):
    del key, train
    return batch["x"] @ params["w"]


def loss_fn(outputs, batch):
    return Mean(jnp.sum((outputs - batch["y"]) ** 2), jnp.float32(len(batch["y"])))


def batches():
    rng = np.random.default_rng(0)
    found = [{"x": rng.normal(size=(4, 3)).astype("f4"), "y": np.ones(4, "f4")} for _ in range(5)]
    found[2]["x"][1, 1] = np.nan
    found[3]["y"][0] = np.inf
    return found


def test_a_step_that_is_left_out_changes_the_step_number_alone():
    """What comes out is what optax gives for the good batches alone."""
    step = jax.jit(skip_nonfinite(make_train_step(apply_fn, loss_fn, TX)))
    state = init_state({"w": jnp.ones(3)}, TX, jax.random.key(0))
    for batch in batches():
        state, _ = step(state, {"w": None}, batch)
    params, moments = {"w": jnp.ones(3)}, TX.init({"w": jnp.ones(3)})
    for batch in [batches()[i] for i in (0, 1, 4)]:
        grads = jax.grad(lambda p, b: jnp.mean((b["x"] @ p["w"] - b["y"]) ** 2))(params, batch)
        updates, moments = TX.update(grads, moments)
        params = optax.apply_updates(params, updates)
    assert int(state.step) == 5
    np.testing.assert_allclose(state.params["w"], params["w"], rtol=1e-5)
    assert int(state.opt_state[0].count) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint32", "bool"])
def test_every_wrong_bit_changes_the_checksum(dtype):
    rng = np.random.default_rng(0)
    leaf = rng.integers(0, 2 if dtype == "bool" else 100, (3, 5)).astype(jnp.dtype(dtype))
    right = values.checksums({"a": jnp.asarray(leaf)})
    assert right == values.checksums({"a": jnp.asarray(leaf.copy())})
    raw = leaf.view(np.uint8).reshape(-1)
    for place in range(raw.size):
        for bit in range(1 if dtype == "bool" else 8):
            wrong = raw.copy()
            wrong[place] ^= 1 << bit
            wrong = wrong.view(leaf.dtype).reshape(leaf.shape)
            assert values.checksums({"a": jnp.asarray(wrong)}) != right
    moved = jnp.asarray(leaf.reshape(5, 3).T.copy())
    assert values.checksums({"a": moved}) != right


def spoiled(at, what):
    """A hook that puts a number that is not finite into the parameters after a step."""

    def act(moment):
        if moment.step != at:
            return None
        stage = moment.stage
        params = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(what), stage.state.params)
        return moment._replace(stage=stage._replace(state=stage.state._replace(params=params)))

    return Hook(act, every(1))


LONG = {"train.num_steps": 6, "train.checkpoint_every_steps": 2, "train.eval_every_steps": 6}


def test_a_run_stops_and_keeps_the_last_good_checkpoint(
    tiny_settings, tiny_weights, tmp_path, capsys
):
    model = tiny_weights("classification", "bert", 1)
    settings = tiny_settings("classification", "full", model, **LONG)
    workdir = tmp_path / "run"
    with pytest.raises(UserError, match=r"step 4 is not finite: loss nan.*rows .*skip") as caught:
        train(settings, workdir, Report(), hooks=[spoiled(3, np.nan)])
    assert "learning rate" in str(caught.value)
    assert "\n" not in str(caught.value)
    rows = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("step 4: rows")
    ]
    assert len(rows[0].split(", ")) == 4  # as many as a batch has
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2"}
    assert not (workdir / "model").exists()
    assert not (workdir / "results.json").exists()
    results = train(settings, workdir, Report())
    assert results["resumed_from_step"] == 2


def test_a_last_step_that_spoils_the_parameters_exports_nothing(
    tiny_settings, tiny_weights, tmp_path
):
    model = tiny_weights("classification", "bert", 1)
    more = {"train.num_steps": 1, "optimizer.learning_rate": 1e30, "optimizer.warmup_fraction": 0}
    settings = tiny_settings("classification", "full", model, **more)
    with pytest.raises(UserError, match=r"after step 1, validation: the .* is .*config.optimizer"):
        train(settings, tmp_path / "run", Report())
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("config.json", "metrics.jsonl", "checkpoints", "tensorboard")
    }


def test_skipping_goes_on_and_is_counted(tiny_settings, tiny_weights, tmp_path, monkeypatch):
    """A batch whose labels' weight is NaN: the run ends well, with a line for it."""
    from jaxtune.data.batching.stream import Stream

    collate, seen = Stream.collate, []

    def spoil(self, index, epoch, rows=None):
        batch = collate(self, index, epoch, rows)
        if len(index.indices):
            seen.append(0)
            if len(seen) == 3:
                batch["weight"] = batch["weight"] * np.float32(np.nan)
        return batch

    monkeypatch.setattr(Stream, "collate", spoil)
    model = tiny_weights("classification", "bert", 1)
    more = {"train.on_nonfinite": "skip", "train.log_every_steps": 6}
    settings = tiny_settings("classification", "full", model, **LONG | more)
    results = train(settings, tmp_path / "run", Report())
    assert np.isfinite(results["scores"]["validation"]["loss"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines if "train/loss" in line]
    assert [row["train/skipped_steps"] for row in logged] == [1]
    assert np.isfinite(logged[0]["train/loss"])
