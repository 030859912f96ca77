"""What a sweep may try: a range or a few choices for some settings."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.run import config_types
from jaxtune.run.config import find_hint, settings_of
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict

_FIXED = {
    "seed": "--seeds=K trains the best with K seeds",
    "task": "its scores are not those of another task",
    "data.path": "scores on other data are not comparable",
    "data.validation_size": "scores on other rows are not comparable",
    "data.split_seed": "scores on other rows are not comparable",
    "data.max_eval_examples": "scores on other rows are not comparable",
    "train.best_metric": "trials are compared by one score",
    "train.max_seconds": "it is the time of the whole sweep",
}
_WIDE = 10.0  # from the low end to the high one: such a range is drawn from by its logarithm
_RANGE = re.compile(r"([^|]*[^|.])\.\.([^|.][^|]*)")


class Range(NamedTuple):
    """Numbers between two ends, both included.

    Attributes:
      low: the least.
      high: the largest.
      log: whether the logarithm is uniform.
      whole: whether they are whole numbers.
    """

    low: float
    high: float
    log: bool
    whole: bool

    def suggest(self, trial: Any, name: str) -> str:
        """A value as it is typed."""
        if self.whole:
            return str(trial.suggest_int(name, int(self.low), int(self.high)))
        return repr(trial.suggest_float(name, self.low, self.high, log=self.log))

    def holds(self, value: Any) -> bool:
        """Whether a value of the settings is one of these."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    def own(self, value: Any) -> Any:
        """A value of the settings as Optuna takes it."""
        return int(value) if self.whole else float(value)

    def ends(self) -> list[str]:
        """Those as they are typed."""
        return [f"{int(x) if self.whole else x!r}" for x in (self.low, self.high)]


class Choices(NamedTuple):
    """A few values.

    Attributes:
      words: as they are typed.
    """

    words: tuple[str, ...]

    def suggest(self, trial: Any, name: str) -> str:
        """A value as it is typed."""
        return trial.suggest_categorical(name, list(self.words))

    def holds(self, value: Any) -> bool:
        """Whether a value of the settings is one of these."""
        return self.own(value) in self.words

    def own(self, value: Any) -> str:
        """A value of the settings as Optuna takes it."""
        if isinstance(value, bool):
            return str(value).lower()
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def ends(self) -> list[str]:
        """All of them."""
        return list(self.words)


Space = Mapping[str, Range | Choices]
"""By dotted name of the setting."""


def read_space(specs: Mapping[str, str], settings: Settings) -> Space:
    """The space that a person types, or the default one where nothing is typed.

    Args:
      specs: by name of the setting: `LOW..HIGH` or `A|B|C`.
      settings: that the trials begin with.

    Raises:
      UserError: no such setting, one that no sweep may change, or values that it does not admit.
    """
    if not specs:
        return default_space(settings)
    space = {name: _read(name, text) for name, text in specs.items()}
    for name, part in space.items():
        for word in part.ends():
            with_values(settings, {name: word})
    return space


def default_space(settings: Settings) -> Space:
    """Rates within a factor of ten each way, the decay by layer, and half to twice the epochs."""
    rate, train = settings.optimizer.learning_rate, settings.train
    space: dict[str, Range | Choices] = {
        "optimizer.learning_rate": Range(rate / 10, rate * 10, log=True, whole=False)
    }
    if settings.tuning.name != "head":  # which has no layers
        space["optimizer.layer_decay"] = Range(0.7, 1.0, log=False, whole=False)
    if train.num_steps is None:
        low, high = max(1, train.num_epochs // 2), 2 * train.num_epochs
        space["train.num_epochs"] = Range(low, high, log=False, whole=True)
    return space


def with_values(settings: Settings, words: Mapping[str, str]) -> Settings:
    """The settings with other values, as they are typed.

    Raises:
      UserError: a value that a setting does not admit.
    """
    return settings_of(to_dict(settings), words)


def value_of(settings: Settings, name: str) -> Any:
    """The value of a setting by its dotted name."""
    value: Any = to_dict(settings)
    for part in name.split("."):
        value = value[part]
    return value


def describe(space: Space) -> dict[str, Any]:
    """The space as JSON."""
    return {name: {"kind": type(part).__name__} | part._asdict() for name, part in space.items()}


def _read(name: str, text: str) -> Range | Choices:
    """One setting's part of the space."""
    hint = find_hint(name)
    flag = f"--sweep.{name}={text}"
    if name in _FIXED:
        raise UserError(f"{flag}: a sweep cannot change {name}, as {_FIXED[name]}.")
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        words = tuple(word.strip() for word in text.split("|"))
        if len(words) < 2 or len({*words}) < len(words) or not all(words):
            raise UserError(f"{flag}: expected LOW..HIGH, or two or more different values A|B|C.")
        return Choices(words)
    kinds = config_types.kinds(hint)
    if not {int, float} & {*kinds} or bool in kinds:
        raise UserError(f"{flag}: config.{name} is no number: expected values A|B|C.")
    whole = float not in kinds
    try:
        low, high = ((int if whole else float)(part) for part in found.groups())
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise UserError(f"{flag}: expected two {kind}, LOW..HIGH.") from None
    if not low < high:
        raise UserError(f"{flag}: expected LOW below HIGH.")
    return Range(low, high, log=not whole and low > 0 and high / low >= _WIDE, whole=whole)
