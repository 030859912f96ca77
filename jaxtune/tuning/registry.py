"""Strategy names, as `config.tuning.name` spells them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtune.errors import UserError, nearest
from jaxtune.tuning.full import Full
from jaxtune.tuning.last_layers import LastLayers
from jaxtune.tuning.partition import Strategy

STRATEGIES: Mapping[str, type] = {"full": Full, "last_layers": LastLayers}


def make_strategy(name: str, fields: Mapping[str, Any]) -> Strategy:
    """Builds the strategy `name` from the fields that belong to it.

    Args:
      name: a key of STRATEGIES.
      fields: values by field name; None means not set, and fields of other strategies may be
        present as long as they are None.

    Raises:
      UserError: an unknown name, a field that is missing, or one that the strategy does not have.
    """
    if name not in STRATEGIES:
        raise UserError(
            f"config.tuning.name is {name!r}: expected one of {', '.join(STRATEGIES)}."
            f"{nearest(name, STRATEGIES)}"
        )
    strategy = STRATEGIES[name]
    known = {field.name: field for field in dataclasses.fields(strategy)}
    given = {key: value for key, value in fields.items() if value is not None}
    for key in given:
        if key not in known:
            raise UserError(f"config.tuning.{key} is set, but the strategy {name!r} has no {key}.")
    for key, field in known.items():
        if field.default is dataclasses.MISSING and key not in given:
            raise UserError(f"config.tuning.{key} must be set for the strategy {name!r}.")
    return strategy(**given)
