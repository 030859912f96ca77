"""TensorBoard, Weights & Biases, MLflow and Trackio, as trackers of a run.

Each has the settings once, the numbers at their steps, and the last scores. Where they go beside
the workdir, and whether over a network, is for their own environment variables to say.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxtune.run.services import Say, keep_id
from jaxtune.run.trackers import Tracker, event_of

_PROJECT = "jaxtune"  # where their variables name none
_MOST_PARAMS = 100  # that MLflow takes at once


class TensorBoard:
    """Event files in the workdir's `tensorboard/`, one each time that the run goes on.

    They are written in this thread: that of tensorboardX's SummaryWriter dies of a full disk, and
    whoever asks it for more waits for ever.
    """

    def __init__(self, workdir: Path, say: Say) -> None:
        """Nothing is opened yet."""
        del say
        self._folder = workdir / "tensorboard"
        self._writer: Any = None
        self._events: Any = None
        self._summary: Any = None

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Opens a file; the later steps of those before are void."""
        self._events = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summary = importlib.import_module("tensorboardX.summary")
        writer = importlib.import_module("tensorboardX.event_file_writer").EventsWriter
        self._folder.mkdir(parents=True, exist_ok=True)
        goes_on = any(self._folder.iterdir())
        self._writer = writer(str(self._folder / "events"), f".{time.time_ns()}")
        if goes_on:
            begun = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=step + 1, session_log=begun)
        else:
            lines = json.dumps(config, indent=2).split("\n")  # code, where Markdown is indented
            spelled = "".join(f"    {line}\n" for line in lines)
            self._write(step=0, summary=self._summary.text("config", spelled))
        self._writer.flush()

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Writes the numbers, so that they are there at once."""
        for name, value in _numbers(scores):
            self._write(step=step, summary=self._summary.scalar(name, value))
        self._writer.flush()

    def finish(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write_event(self._events.Event(wall_time=time.time(), **fields))


class WeightsAndBiases:
    """A run of wandb, whose id is kept in the workdir."""

    def __init__(self, workdir: Path, say: Say) -> None:
        """Nothing is opened yet."""
        self._workdir, self._say = workdir, say
        self._run: Any = None

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Begins the run, or goes on with it; wandb keeps the first numbers of a step."""
        del step
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which sends, offline too
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=os.environ.get("WANDB_NAME", self._workdir.resolve().name),
            dir=os.environ.get("WANDB_DIR", str(self._workdir)),
            id=keep_id(self._workdir, "wandb"),
            resume="allow",
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._say(f"wandb: {self._run.dir if self._run.offline else self._run.url}")

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Numbers of a step; the last ones are the run's summary."""
        if event_of(scores)["event"] == "end":
            self._run.summary.update(dict(_numbers(scores)))
        else:
            self._run.log(dict(_numbers(scores)), step=step)

    def finish(self) -> None:
        """Waits until all is sent."""
        if self._run is not None:
            self._run.finish()


class MLflow:
    """A run of MLflow, whose id is kept in the workdir, as is its database by default."""

    def __init__(self, workdir: Path, say: Say) -> None:
        """Nothing is opened yet."""
        self._workdir, self._say = workdir, say
        self._client: Any = None
        self._id = ""
        self._status = "KILLED"

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Begins the run, or goes on with it."""
        del step
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # which sends, whatever the place
        folder = self._workdir.resolve()
        place = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        mlflow = importlib.import_module("mlflow")
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # which tells of tables it makes
        client = self._client = mlflow.MlflowClient(tracking_uri=place)

        def create() -> str:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            known = client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else client.create_experiment(name)
            run_id = client.create_run(experiment, run_name=folder.name).info.run_id
            params = [mlflow.entities.Param(*pair) for pair in _flat(config)]
            for first in range(0, len(params), _MOST_PARAMS):
                client.log_batch(run_id, params=params[first : first + _MOST_PARAMS])
            return run_id

        self._id = keep_id(self._workdir, "mlflow", create)
        client.update_run(self._id, status="RUNNING")
        self._say(f"mlflow: run {self._id} at {place}")

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Numbers of a step."""
        entities, now = importlib.import_module("mlflow.entities"), int(time.time() * 1000)
        metrics = [entities.Metric(name, value, now, step) for name, value in _numbers(scores)]
        self._client.log_batch(self._id, metrics=metrics)
        if event_of(scores)["event"] == "end":
            self._status = "FINISHED"

    def finish(self) -> None:
        """Says whether it came to its end."""
        if self._id:
            self._client.set_terminated(self._id, self._status)


class Trackio:
    """A run of trackio, whose name is kept in the workdir."""

    def __init__(self, workdir: Path, say: Say) -> None:
        """Nothing is opened yet."""
        self._workdir, self._say = workdir, say
        self._trackio: Any = None

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Begins the run, or goes on with it."""
        del step
        trackio = self._trackio = importlib.import_module("trackio")
        project = os.environ.get("TRACKIO_PROJECT", _PROJECT)
        base = self._workdir.resolve().name
        name = keep_id(self._workdir, "trackio", lambda: f"{base}-{int(time.time())}")
        with _unsaid():
            trackio.init(
                project=project, name=name, resume="allow", config=dict(config), embed=False
            )
        self._say(f"trackio: run {name} of project {project}")

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Numbers of a step."""
        self._trackio.log(dict(_numbers(scores)), step=step)

    def finish(self) -> None:
        """Waits until all is written."""
        if self._trackio is not None:
            with _unsaid():
                self._trackio.finish()


MAKERS: Mapping[str, Callable[[Path, Say], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""By the name that a person types."""


def _numbers(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The scores that have a value."""
    return ((name, float(value)) for name, value in scores.items() if value is not None)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as dotted names with their values in text."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _unsaid() -> contextlib.AbstractContextManager[Any]:
    """Keeps what a library prints from the console."""
    return contextlib.redirect_stdout(io.StringIO())
