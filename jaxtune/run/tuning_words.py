"""What is tuned, in words: the strategies with their numbers and targets."""

from collections.abc import Mapping
from typing import Any

from jaxtune.settings import TuningSettings
from jaxtune.settings.dicts import to_dict
from jaxtune.tuning.partition import Strategy
from jaxtune.tuning.union import Union


def tuning_words(settings: TuningSettings, strategy: Strategy) -> str:
    """For example `lora (rank 8, alpha 16)`, with the defaults of what is not set.

    Args:
      settings: name the strategies, as a person typed them.
      strategy: made of them, with the values that each has.
    """
    fields = to_dict(settings)
    names = fields.pop("name").split("+")
    parts = strategy.strategies if isinstance(strategy, Union) else (strategy,)
    words = [
        _named(name, {key: getattr(part, key) for key in fields if hasattr(part, key)})
        for name, part in zip(names, parts, strict=True)
    ]
    others = {key: fields[key] for key in ("frozen_dropout", "batch_statistics")}
    return _named(" + ".join(words), others)


def _named(name: str, fields: Mapping[str, Any]) -> str:
    """A name with the fields that are set, and neither off nor empty."""
    told = {key: value for key, value in fields.items() if value is not None and value is not False}
    given = ", ".join(f"{key} {_spelled(value)}" for key, value in told.items() if value != ())
    return f"{name} ({given})" if given else name


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return " and ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
