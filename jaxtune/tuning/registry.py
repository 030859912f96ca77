"""Strategy names, as `config.tuning.name` spells them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtune.errors import UserError, nearest
from jaxtune.tuning.bitfit import BitFit
from jaxtune.tuning.embeddings_frozen import EmbeddingsFrozen
from jaxtune.tuning.first_layers_frozen import FirstLayersFrozen
from jaxtune.tuning.full import Full
from jaxtune.tuning.head import Head
from jaxtune.tuning.last_layers import LastLayers
from jaxtune.tuning.layernorm import LayerNorm
from jaxtune.tuning.partition import Strategy
from jaxtune.tuning.rules import Rules

STRATEGIES: Mapping[str, type] = {
    "full": Full,
    "head": Head,
    "last_layers": LastLayers,
    "first_layers_frozen": FirstLayersFrozen,
    "embeddings_frozen": EmbeddingsFrozen,
    "bitfit": BitFit,
    "layernorm": LayerNorm,
    "rules": Rules,
}


def make_strategy(name: str, fields: Mapping[str, Any]) -> Strategy:
    """Builds the strategy `name` from the fields that belong to it.

    Args:
      name: a key of STRATEGIES.
      fields: values by field name; None and () mean not set, and fields of other strategies may
        be present as long as they are not set.

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
    given = {key: value for key, value in fields.items() if value not in (None, ())}
    for key in given:
        if key not in known:
            raise UserError(f"config.tuning.{key} is set, but the strategy {name!r} has no {key}.")
    for key, field in known.items():
        if field.default is dataclasses.MISSING and key not in given:
            raise UserError(f"config.tuning.{key} must be set for the strategy {name!r}.")
    return strategy(**given)
