"""Damaged checkpoints are found, the newest sound one is used, and a lost best one ends no run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxtune.core.errors import UserError
from jaxtune.run.checkpoint import Checkpoints, DamagedCheckpointError
from jaxtune.run.console import Report
from jaxtune.run.progress import Progress
from jaxtune.run.train import train
from jaxtune.training.state import init_state

TX = optax.adam(1e-3)


def make_state(step):
    params = {"a": jax.random.normal(jax.random.key(step), (40, 30)), "b": jnp.ones(3)}
    return init_state(params, TX, jax.random.key(1))._replace(step=jnp.int32(step))


@pytest.fixture
def two(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in (1, 2):
            checkpoints.save(make_state(step), Progress(best_step=1))
    return tmp_path / "c"


def read(folder, step=2):
    with Checkpoints(folder) as checkpoints:
        checkpoints.progress(step)
        state, _ = checkpoints.restore(step, make_state(0))
    return state


@pytest.mark.parametrize("count", [12, pytest.param(120, marks=pytest.mark.exhaustive)])
def test_a_flipped_bit_changes_no_value_unseen(two, count):
    """Either it is named as damage, or it stood where no value is."""
    child = [sys.executable, Path(__file__).with_name("flipped.py"), two, "2", str(count)]
    done = subprocess.run(child, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {outcome for _, outcome in found} <= {"damaged", "unharmed"}
    values = [outcome for file, outcome in found if "/d/" in file]
    assert values.count("damaged") > count // 4


def test_other_values_under_the_same_name_are_found(two):
    with Checkpoints(two) as checkpoints:
        beside = checkpoints._beside(2)
    shutil.rmtree(two / "2" / "state")
    shutil.copytree(two / "1" / "state", two / "2" / "state")
    assert set(beside) == {"progress", "base", "values"}
    with pytest.raises(DamagedCheckpointError, match="other values than were written"):
        read(two)


LONG = {"train.num_steps": 6, "train.eval_every_steps": 2, "optimizer.learning_rate": 1e-12}


@pytest.fixture
def settings(tiny_settings, tiny_weights):
    """Whose first evaluation is the best: nothing is learnt."""
    return tiny_settings(
        "classification", "full", tiny_weights("classification", "bert", 1), **LONG
    )


def unfinished(workdir):
    """As a run is that was killed before its export."""
    shutil.rmtree(workdir / "model")
    (workdir / "results.json").unlink()


def bytes_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_goes_on_from_the_newest_sound_one(settings, tmp_path, capsys):
    workdir = tmp_path / "run"
    first = train(settings, workdir, Report(quiet=True))
    model = bytes_of(workdir / "model")
    assert first["best_step"] == 2
    unfinished(workdir)
    (workdir / "checkpoints" / "6" / "_CHECKPOINT_METADATA").write_text("{}")
    again = train(settings, workdir, Report())
    shown = capsys.readouterr().out
    assert f"{workdir / 'checkpoints' / '6'} is damaged" in shown
    assert "going on from the checkpoint at step 2" in shown
    assert again["resumed_from_step"] == 2
    assert again["scores"] == first["scores"]
    assert bytes_of(workdir / "model") == model
    names = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert names == {"2", "6", "6.damaged"}


@pytest.mark.parametrize(
    "damage", ["gone", pytest.param("unreadable", marks=pytest.mark.exhaustive)]
)
def test_a_lost_best_one_does_not_end_the_run(settings, tmp_path, capsys, damage):
    workdir = tmp_path / "run"
    first = train(settings, workdir, Report(quiet=True))
    unfinished(workdir)
    best = workdir / "checkpoints" / "2"
    if damage == "gone":
        shutil.rmtree(best)
    else:
        (best / "_CHECKPOINT_METADATA").write_text("{}")
    again = train(settings, workdir, Report())
    assert again["best_step"] == 6
    assert again["scores"]["test" if "test" in again["scores"] else "validation"]
    assert again["scores"]["validation"]["loss"] == pytest.approx(
        first["scores"]["validation"]["loss"], abs=1e-5
    )
    assert "takes the place of the best" in capsys.readouterr().out


def test_where_all_are_damaged_the_remedy_works(settings, tmp_path):
    workdir = tmp_path / "run"
    train(settings, workdir, Report(quiet=True))
    unfinished(workdir)
    shutil.rmtree(workdir / "checkpoints" / "2")
    (workdir / "checkpoints" / "6" / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(UserError, match="remove that folder to begin anew"):
        train(settings, workdir, Report(quiet=True))
    shutil.rmtree(workdir / "checkpoints" / "6")
    assert train(settings, workdir, Report(quiet=True))["steps"] == 6
