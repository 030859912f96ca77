"""Checkpoints: the same bits come back, the newest and the best are kept, faults are named."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core.errors import UserError
from jaxtune.run import checkpoint
from jaxtune.run.checkpoint import Checkpoints
from jaxtune.run.progress import Progress
from jaxtune.training.average import begin_average
from jaxtune.training.state import TrainState, init_state
from jaxtune.tuning import partition

TX = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.partition(
        {"a": optax.adamw(1e-3), "b": optax.sgd(1e-2, momentum=0.9)},
        {"x": "a", "y": {"z": "b", "frozen": None}},
    ),
)


def make_state(step=0, size=3, seed=0) -> TrainState:
    params = {"x": jnp.linspace(0.1, 1, size), "y": {"z": jnp.float32(np.pi), "frozen": None}}
    state = init_state(params, TX, jax.random.key(seed))
    for _ in range(step):
        grads = jax.tree.map(jnp.sin, state.params)
        updates, opt_state = TX.update(grads, state.opt_state, state.params)
        state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
    return state


def restore_latest(checkpoints, like):
    progress = checkpoints.progress(checkpoints.latest_step)
    return checkpoints.restore(checkpoints.latest_step, like)[0], progress


def numbers(state):
    """Copies, since an array that NumPy looks into is not donated."""
    return jax.tree.map(np.array, state._replace(key=jax.random.key_data(state.key)))


def same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(numbers(first)), jax.tree.leaves(numbers(second)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    return True


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def save(folder, *pairs):
    with Checkpoints(folder) as checkpoints:
        for step, best in pairs:
            checkpoints.save(make_state()._replace(step=jnp.int32(step)), Progress(best_step=best))


def restore_message(folder, like):
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError) as caught:
        restore_latest(checkpoints, like)
    return str(caught.value)


def test_the_same_bits_come_back(tmp_path):
    state = make_state(step=4, seed=7)
    progress = Progress(4, {"accuracy": 0.1 + 0.2, "loss": 2.0}, 3, 1 / 3, 96.0)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(state, progress)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step == 4
        restored, again = restore_latest(checkpoints, make_state())
    assert same(state, restored)
    assert again == progress
    assert isinstance(restored, TrainState)
    assert type(restored.opt_state) is type(state.opt_state)
    assert restored.params["y"]["frozen"] is None
    for key in (state.key, restored.key):  # a key, not numbers
        assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    assert jax.random.uniform(state.key) == jax.random.uniform(restored.key)


def test_nan_and_infinity_come_back(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1), Progress(1, {"f1": float("nan")}, 0, float("inf"), 1.0))
        _, progress = restore_latest(checkpoints, make_state())
    assert np.isnan(progress.best_scores["f1"])
    assert progress.loss_total == float("inf")


@pytest.mark.parametrize(
    ("pairs", "kept"),
    [
        ([(1, 1)], [1]),
        ([(1, 1), (2, 2), (3, 3)], [3]),
        ([(1, 1), (2, 1), (3, 1), (4, 1)], [1, 4]),  # newer ones never evict the best
        ([(1, 1), (2, 2), (3, 2), (4, 4), (5, 4)], [4, 5]),
        ([(1, -1), (2, -1)], [2]),  # before the first evaluation
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, pairs, kept):
    save(tmp_path, *pairs)
    assert steps(tmp_path) == kept


def test_a_resumed_run_still_knows_the_best(tmp_path):
    save(tmp_path, (1, 1), (2, 1))
    with Checkpoints(tmp_path) as checkpoints:
        state, progress = restore_latest(checkpoints, make_state())
        checkpoints.save(state._replace(step=jnp.int32(3)), progress)
    assert steps(tmp_path) == [1, 3]


def test_the_parameters_of_the_best(tmp_path):
    states = {step: make_state(step) for step in (1, 2)}
    with Checkpoints(tmp_path) as checkpoints:
        for state in states.values():
            checkpoints.save(state, Progress(best_step=1))
        best = checkpoints.restore(1, make_state())[0].params
    np.testing.assert_array_equal(best["x"], states[1].params["x"])
    assert not np.array_equal(best["x"], states[2].params["x"])


def test_saving_a_step_again_is_no_error(tmp_path):
    save(tmp_path, (1, 1), (2, 1), (2, 2))
    assert steps(tmp_path) == [1, 2]


def test_a_donated_state_is_written_as_it_was(tmp_path):
    """While Orbax reads an array the runtime gives the step a copy; later it overwrites it."""
    spoil = jax.jit(lambda params: jax.tree.map(lambda x: x * 0 - 1, params), donate_argnums=0)
    state = make_state(2, size=100_000)
    expected = numbers(state)
    assert "aliasing_output" in spoil.lower((state.params, state.opt_state)).as_text()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Progress())
        jax.block_until_ready(spoil((state.params, state.opt_state)))
        restored, _ = restore_latest(checkpoints, make_state(size=100_000))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(numbers(restored)), strict=True):
        np.testing.assert_array_equal(a, b)


# Damage to `manifest.ocdbt` or to `d/` is one message too, but threads of Orbax that are still
# reading then print tracebacks of their own, which would fail whatever test comes next.
@pytest.mark.parametrize("file", ["state/_METADATA", "_CHECKPOINT_METADATA"])
def test_a_damaged_checkpoint_names_its_folder(tmp_path, file):
    save(tmp_path, (1, 1), (2, 1))
    (tmp_path / "2" / file).write_bytes(b"\xffnonsense")
    text = restore_message(tmp_path, make_state())
    assert str(tmp_path / "2") in text
    assert "\n" not in text
    assert "handler" not in text  # of Orbax, which no person has heard of


def test_without_the_damaged_one_the_run_goes_on_from_the_one_before(tmp_path):
    save(tmp_path, (1, 1), (2, 1))
    for path in sorted((tmp_path / "2").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "2").rmdir()
    with Checkpoints(tmp_path) as checkpoints:
        state, progress = restore_latest(checkpoints, make_state())
    assert (int(state.step), progress.best_step) == (1, 1)


def with_more(state):
    params = {"x": state.params["x"], "y": {"z": state.params["y"]["z"], "frozen": jnp.ones(2)}}
    return state._replace(params=params)


def without(state):
    return state._replace(params={"x": state.params["x"], "y": {"z": None, "frozen": None}})


def in_half_precision(state):
    return state._replace(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda state: make_state(size=4),
            "mu/x is float32[3] in it, but the model's is float32[4]",
        ),
        (without, "params/y/z is float32[] in it, but the model's is absent"),
        (with_more, "params/y/frozen is absent in it, but the model's is float32[2]"),
        (in_half_precision, "params/x is float32[3] in it, but the model's is bfloat16[3]"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, change, words):
    save(tmp_path, (5, 5))
    text = restore_message(tmp_path, change(make_state()))
    assert str(tmp_path / "5") in text
    assert "does not fit" in text
    assert words in text


def test_what_a_killed_save_left_is_not_a_checkpoint(tmp_path):
    code = (
        "import os, sys, jax, jax.numpy as jnp, optax\n"
        "from pathlib import Path\n"
        "from jaxtune.run.checkpoint import Checkpoints\n"
        "from jaxtune.run.progress import Progress\n"
        "from jaxtune.training.state import init_state\n"
        "state = init_state({'x': jnp.ones(9)}, optax.sgd(1.0), jax.random.key(0))\n"
        "c = Checkpoints(Path(sys.argv[1]))\n"
        "c.save(state._replace(step=jnp.int32(1)), Progress(1)); c._checkpointer.wait()\n"
        "c.save(state._replace(step=jnp.int32(2)), Progress(1)); os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=os.environ, check=False)
    assert done.returncode == 9
    like = init_state({"x": jnp.ones(9)}, optax.sgd(1.0), jax.random.key(0))
    with Checkpoints(tmp_path) as checkpoints:
        state, _ = restore_latest(checkpoints, like)
        assert int(state.step) == checkpoints.latest_step
        checkpoints.save(state._replace(step=jnp.int32(3)), Progress(1))
    assert steps(tmp_path) == [1, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "3"}


def folder_bytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_checkpoint_is_as_large_as_what_is_trained(tmp_path):
    """Twelve bytes for each trained parameter: its value and two moments. Nothing for the rest."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {f"w{i}": jax.random.normal(key, (200, 300)) for i, key in enumerate(keys)}
    for count in range(1, 5):
        labels = {name: "group" if i < count else "frozen" for i, name in enumerate(params)}
        trainable, _ = partition.partition(params, labels)
        tx = optax.adamw(1e-3)
        state = init_state(trainable, tx, jax.random.key(0))
        _, moments = tx.update(jax.tree.map(jnp.sin, trainable), state.opt_state, trainable)
        folder = tmp_path / str(count)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(state._replace(opt_state=moments), Progress())
        size, expected = folder_bytes(folder), 12 * count * 200 * 300
        assert 0.8 * expected < size < expected + 30_000  # floats compress a little


def test_a_checkpoint_names_its_base_and_is_refused_with_another(tmp_path):
    with Checkpoints(tmp_path, {"model": "first", "sha256": "a1"}) as checkpoints:
        checkpoints.save(make_state(), Progress())
    message = r"trained from first with sha256 a1, but second has b2"
    other = Checkpoints(tmp_path, {"model": "second", "sha256": "b2"})
    with other as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.progress(0)
    with Checkpoints(tmp_path, {"model": "moved", "sha256": "a1"}) as checkpoints:
        assert checkpoints.progress(0) == Progress()


def test_without_an_average_a_checkpoint_has_the_names_that_it_always_had():
    state = make_state()
    names = ("step", "params", "opt_state", "key", "settled")
    assert checkpoint._storable(state, None)._fields == names
    averaged = checkpoint._storable(begin_average(state), None)
    assert averaged._fields == (*names, "average")
