"""What the workdirs of several runs say, and whether they may stand in one table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object
from jaxtune.run.checkpoint import newest_step
from jaxtune.run.workdir import kept_settings

_REMEDY = "Expected the workdir of a run, as the run left it."
_SCORED = (
    *("label_column", "label_columns", "max_eval_examples"),
    *("validation_size", "test_size", "split_seed"),
)
"""Settings of the data that say which rows are scored, and on what."""


class Seen(NamedTuple):
    """A run, finished or not.

    Attributes:
      workdir: as it was typed.
      config: the settings, with defaults for what config.json lacks.
      results: results.json; None of a run that is not finished.
      reason: why it is not; empty of one that is.
    """

    workdir: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None
    reason: str = ""

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config["seed"]


def read_runs(workdirs: Sequence[Path]) -> list[Seen]:
    """Reads the workdirs of runs on one task and the same data.

    Raises:
      UserError: one is no workdir, is named twice, or is of another task or of other data.
    """
    seen = [_read(workdir) for workdir in workdirs]
    places: dict[Path, Path] = {}
    for run in seen:
        place = run.workdir.resolve()
        if place in places:
            raise UserError(f"{run.workdir} and {places[place]} are one workdir: name it once.")
        places[place] = run.workdir
    first, *others = seen
    for other in others:
        _check_same(first, other)
    return seen


def finished(seen: Sequence[Seen]) -> list[tuple[Seen, Mapping[str, Any]]]:
    """The runs that have come to their end, each with its results."""
    return [(run, run.results) for run in seen if run.results is not None]


def _read(workdir: Path) -> Seen:
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} has no config.json. {_REMEDY}")
    config = kept_settings(workdir)
    if not isinstance(config.get("data"), dict) or "task" not in config:
        raise UserError(f"{workdir / 'config.json'} has no task or data. {_REMEDY}")
    file = workdir / "results.json"
    if not file.is_file():
        return Seen(workdir, config, None, _why(workdir))
    results = read_json_object(file, _REMEDY)
    if not isinstance(results.get("scores"), dict) or "best_metric" not in results:
        raise UserError(f"{file} has no scores. {_REMEDY}")
    return Seen(workdir, config, results)


def _why(workdir: Path) -> str:
    """Why a run has no results."""
    step = newest_step(workdir / "checkpoints")
    if (workdir / ".lock").exists():
        return f"it runs, or was killed; the newest checkpoint is of step {step or 0}"
    if step:
        return f"it stopped at step {step}; `jaxtune train` with this workdir goes on"
    return f"it ended after step {_last_step(workdir / 'metrics.jsonl')} and has no checkpoint"


def _last_step(file: Path) -> int:
    """The step of the last whole line of metrics.jsonl; 0 without one."""
    lines = file.read_bytes().splitlines() if file.is_file() else []
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return 0


def _check_same(one: Seen, other: Seen) -> None:
    """Refuses runs whose scores are not of the same rows and labels.

    Raises:
      UserError: names what differs.
    """
    ours, theirs = (_scored(run.config) for run in (one, other))
    for name, value in ours.items():
        if theirs[name] != value:
            raise UserError(
                f"{one.workdir} and {other.workdir} cannot be compared, as their {name} differ:"
                f" {value!r} and {theirs[name]!r}. Expected runs on one task and the same data."
            )


def _scored(config: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for scores to be comparable."""
    data = config["data"]
    digest = data.get("sha256")
    source = {"data.sha256": digest} if digest else {}
    if digest is None:  # of the hub
        source = {f"data.{name}": data.get(name) for name in ("path", "name")}
    found = {"task": config["task"], "data": json.dumps(source, sort_keys=True)}
    return found | {f"data.{name}": data.get(name) for name in _SCORED}
