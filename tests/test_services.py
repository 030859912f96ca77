"""Trackers of others: what each has written is read back, and none ends a run."""

import importlib
import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from event_files import read_events
from service_worker import CONFIG, ROWS, tell

from jaxtune.core.errors import UserError
from jaxtune.run.services import Guarded, chosen, keep_id, make_trackers

WORKER = Path(__file__).with_name("service_worker.py")
NUMBERS = [(step, name, value) for step, row in ROWS for name, value in row.items()]


def test_tensorboard_has_the_numbers_at_their_steps_and_the_config_once(tmp_path):
    tell("tensorboard", tmp_path, ROWS[:2], 0)
    tell("tensorboard", tmp_path, ROWS[2:], 4)
    told = read_events(tmp_path / "tensorboard")
    assert told.scalars == [(at, name, value) for at, name, value in NUMBERS if value is not None]
    assert told.begun == [5]  # the first step that is taken anew
    assert json.loads(told.texts["config/text_summary"]) == CONFIG


def test_tensorboard_itself_leaves_out_what_is_void(tmp_path):
    pytest.importorskip("tensorboard")
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    tell("tensorboard", tmp_path, [*ROWS[:2], (5, {"train/loss": 9.0})], 0)
    tell("tensorboard", tmp_path, ROWS[2:], 4)
    found = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("train/loss")]
    assert losses == [(2, 0.75), (6, 0.375)]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_service_has_the_numbers_of_one_run_that_went_on(name, tmp_path):
    pytest.importorskip(name)
    (tmp_path / "run").mkdir()
    places = {"HOME": str(tmp_path), "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, WORKER, name, tmp_path / "run"],
        env=os.environ | places | {"WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    kept = json.loads((tmp_path / "run" / "trackers.json").read_text())
    assert found["ids"] == [kept[name]]
    flat = {"seed": "3", "tuning.name": "lora", "tuning.rank": "8"}
    config = flat if name == "mlflow" else CONFIG
    assert found["config"].items() >= config.items()
    scores = {(step, k): value for step, row in found["scores"] for k, value in row.items()}
    expected = {(step, k): value for step, k, value in NUMBERS if value is not None}
    ends = {k: value for (_, k), value in expected.items() if k.startswith("end/")}
    assert found["ends"] == ends
    own = {key: value for key, value in scores.items() if not key[1].startswith("end/")}
    assert own == {key: value for key, value in expected.items() if key[1] not in ends}
    assert found.get("status", "FINISHED") == "FINISHED"


class Failing:
    """A tracker that fails at its call of some number."""

    def __init__(self, number):
        self.calls, self.number = [], number

    def _call(self, name):
        self.calls.append(name)
        if len(self.calls) == self.number:
            raise OSError("no\nroute")

    def start(self, config, step):
        self._call("start")

    def log(self, step, scores):
        self._call("log")

    def finish(self):
        self._call("finish")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_tracker_that_fails_is_dropped_with_one_line(number):
    said, failing = [], Failing(number)
    tracker = Guarded("far", failing, said.append)
    tracker.start({}, 0)
    tracker.log(1, {})
    tracker.log(2, {})
    tracker.finish()
    calls = ["start", "log", "log", "finish"]
    assert failing.calls == calls[:number]
    told = "far failed, and gets no more of this run: OSError: no route"
    assert said == [told] * (number < 5)


def test_a_disk_that_refuses_event_files_is_told_of(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    said = []
    (tracker,) = make_trackers(("tensorboard",), tmp_path, said.append)
    tracker.start(CONFIG, 0)
    tracker.log(1, {"train/loss": 1.0})
    tracker.finish()
    assert len(said) == 1
    assert "tensorboard failed" in said[0]


def found(monkeypatch, *packages):
    def find_spec(name):
        origin = "there" if name in packages else None  # a folder of the name has a spec too
        return importlib.machinery.ModuleSpec(name, None, origin=origin)

    monkeypatch.setattr("jaxtune.core.extras.importlib.util.find_spec", find_spec)


def test_tensorboard_is_chosen_where_it_is_installed(monkeypatch):
    found(monkeypatch, "tensorboardX", "wandb")
    assert chosen(None) == ("tensorboard",)
    assert chosen(()) == ()
    assert chosen(("wandb", "tensorboard", "wandb")) == ("wandb", "tensorboard")
    found(monkeypatch)
    assert chosen(None) == ()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tensorboard", r"package tensorboardX is not installed: pip install \"jaxtune\[tens"),
        ("wandb", r"pip install \"jaxtune\[trackers\]\""),
        ("trackio", "pip install trackio"),
    ],
)
def test_a_named_tracker_that_is_missing_is_an_error(name, remedy, monkeypatch):
    found(monkeypatch)
    with pytest.raises(UserError, match=remedy):
        chosen((name,))


def test_an_id_is_made_once(tmp_path):
    first = keep_id(tmp_path, "wandb")
    assert keep_id(tmp_path, "mlflow", lambda: "7") == "7"
    assert keep_id(tmp_path, "wandb") == first
    assert keep_id(tmp_path, "mlflow", lambda: "8") == "7"
