"""Trackers of others, by the names that `train.trackers` has, kept from ending a run."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.core.extras import is_installed
from jaxtune.io.atomic import write_atomic
from jaxtune.io.json_files import read_json_object
from jaxtune.run.trackers import Tracker

PACKAGES = {
    "tensorboard": ("tensorboardX", '"jaxtune[tensorboard]"'),
    "wandb": ("wandb", '"jaxtune[trackers]"'),
    "mlflow": ("mlflow", '"jaxtune[trackers]"'),
    "trackio": ("trackio", "trackio"),  # in no extra: it asks for an older Pillow
}
"""The package that each needs, and what brings it."""

Say = Callable[[str], Any]


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """The names as they are; of None, TensorBoard's where its package is installed.

    Raises:
      UserError: a package that is not installed.
    """
    if names is None:
        return ("tensorboard",) if is_installed(PACKAGES["tensorboard"][0]) else ()
    for name in names:
        package, brought_by = PACKAGES[name]
        if not is_installed(package):
            raise UserError(
                f"config.train.trackers names {name!r}, whose package {package} is not installed:"
                f" pip install {brought_by}, or leave it out."
            )
    return tuple(dict.fromkeys(names))


def make_trackers(names: Sequence[str] | None, workdir: Path, say: Say) -> list[Tracker]:
    """The trackers so called; nothing is started yet.

    Args:
      names: as the settings have them.
      workdir: of the run.
      say: takes a line for a person.
    """
    from jaxtune.run.service_trackers import MAKERS

    return [Guarded(name, MAKERS[name](workdir, say), say) for name in chosen(names)]


class Guarded:
    """A tracker that is dropped, with one line, where it fails: what it tells is not the run."""

    def __init__(self, name: str, tracker: Tracker, say: Say) -> None:
        """Nothing is started yet."""
        self._name, self._say = name, say
        self._tracker: Tracker | None = tracker

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """As of the tracker."""
        self._try(lambda tracker: tracker.start(config, step))

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """As of the tracker."""
        self._try(lambda tracker: tracker.log(step, scores))

    def finish(self) -> None:
        """As of the tracker."""
        self._try(lambda tracker: tracker.finish())

    def _try(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:  # a network, a disk, a login: whatever theirs raises
            self._tracker = None
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._say(f"{self._name} failed, and gets no more of this run: {told[:300]}")


def keep_id(workdir: Path, name: str, make: Callable[[], str] = lambda: uuid.uuid4().hex) -> str:
    """The id of a run at a service, made once and kept in the workdir's trackers.json.

    Raises:
      UserError: a file that holds something else.
    """
    file = workdir / "trackers.json"
    ids = read_json_object(file) if file.exists() else {}
    if not isinstance(ids.get(name), str):
        ids[name] = make()
        write_atomic(file, json.dumps(ids, indent=2) + "\n")
    return ids[name]
