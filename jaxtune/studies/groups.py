"""Runs that differ in nothing but the seed are one group, with mean and spread of its scores."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtune.studies.workdirs import Seen, finished

_IGNORED = (
    *("seed", "model.", "data.path", "data.name", "data.sha256", "parallel.", "profile."),
    *("train.log_every_steps", "train.checkpoint_every_steps", "train.max_seconds"),
    "activation_cache.max_memory_bytes",
)
"""What runs may differ in without being different, or is told in other words."""

NUMBERS = ("steps", "seconds", "trainable_parameters", "peak_memory_bytes")
"""Of results.json, beside the scores."""


class Spread(NamedTuple):
    """A score of several runs.

    Attributes:
      mean: over the runs; None where it is undefined in all of them.
      deviation: of the sample, with n - 1; None of fewer than two.
      known: n, the runs in which it is defined.
    """

    mean: float | None
    deviation: float | None
    known: int


class Group(NamedTuple):
    """Runs that differ in their seed alone.

    Attributes:
      runs: finished ones, in the order in which they were named.
      settings: in which the groups differ, by name.
      scores: by split and name.
      numbers: NUMBERS, each the mean of the runs; None where it is unknown.
    """

    runs: tuple[Seen, ...]
    settings: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Spread]]
    numbers: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """The first workdir."""
        return str(self.runs[0].workdir)


def group(seen: Sequence[Seen]) -> list[Group]:
    """The groups of the finished runs, in the order of their first ones."""
    names = _model_names(seen)
    members: dict[str, list[Seen]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for run, _ in finished(seen):
        told = _told(run.config, names)
        key = json.dumps(told, sort_keys=True)
        members.setdefault(key, []).append(run)
        settings[key] = told
    differing = [
        name
        for name in dict.fromkeys(name for told in settings.values() for name in told)
        if len({json.dumps(told.get(name)) for told in settings.values()}) > 1
    ]
    return [
        _made(runs, {name: settings[key].get(name) for name in differing})
        for key, runs in members.items()
    ]


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and deviation of the values that are defined."""
    known = [float(value) for value in values if value is not None]
    mean = statistics.fmean(known) if known else None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Spread(mean, deviation, len(known))


def _made(runs: Sequence[Seen], settings: Mapping[str, Any]) -> Group:
    results = [found for _, found in finished(runs)]
    scores = {
        split: {
            name: spread([found["scores"].get(split, {}).get(name) for found in results])
            for name in part
        }
        for split, part in results[0]["scores"].items()
    }
    numbers = {name: spread([found.get(name) for found in results]).mean for name in NUMBERS}
    return Group(tuple(runs), settings, scores, numbers)


def _told(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The settings that tell a run from others, by dotted name."""
    flat = {name: value for name, value in flatten(config) if not name.startswith(_IGNORED)}
    scratch = config["model"].get("from_scratch", False)
    return {"model": names[_model(config)], "model.from_scratch": scratch} | flat


def _model_names(seen: Sequence[Seen]) -> dict[str, str]:
    """What to call each model: the path under which it came first, unless another has that too."""
    names: dict[str, str] = {}
    for run in seen:
        key, path = _model(run.config), str(run.config["model"].get("path"))
        if key not in names:
            names[key] = path if path not in names.values() else f"{path} ({key[:8]})"
    return names


def _model(config: Mapping[str, Any]) -> str:
    """The digest of the weights, which tells models apart wherever they lie."""
    model = config["model"]
    return str(model.get("sha256") or model.get("path"))


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (dotted name, value)."""
    found = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            found += flatten(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
