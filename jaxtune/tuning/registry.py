"""Strategy names, as `config.tuning.name` spells them."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jaxtune.core.errors import UserError, nearest
from jaxtune.tuning.bottleneck import BottleneckAdapter
from jaxtune.tuning.gradual import Gradual
from jaxtune.tuning.ia3 import IA3
from jaxtune.tuning.lora import Lora
from jaxtune.tuning.partition import Strategy
from jaxtune.tuning.prefix import Prefix
from jaxtune.tuning.selective import (
    BitFit,
    EmbeddingsFrozen,
    FirstLayersFrozen,
    Full,
    Head,
    LastLayers,
    LayerNorm,
    Rules,
)
from jaxtune.tuning.union import Union

STRATEGIES: Mapping[str, type] = {
    "full": Full,
    "head": Head,
    "last_layers": LastLayers,
    "first_layers_frozen": FirstLayersFrozen,
    "embeddings_frozen": EmbeddingsFrozen,
    "bitfit": BitFit,
    "layernorm": LayerNorm,
    "rules": Rules,
    "gradual": Gradual,
    "lora": Lora,
    "ia3": IA3,
    "adapter": BottleneckAdapter,
    "prefix": Prefix,
}


def make_strategy(
    name: str,
    fields: Mapping[str, Any],
    defaults: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Strategy:
    """Builds the strategy `name` from the fields that belong to it.

    Args:
      name: a key of STRATEGIES, or several joined by `+` for their union.
      fields: values by field name; None and () mean not set, and fields of other strategies may
        be present as long as they are not set.
      defaults: the model family's own values for fields, by strategy; those of BERT otherwise.

    Raises:
      UserError: an unknown name, a field that is missing, or one that the strategy does not have.
    """
    parts = name.split("+")
    for part in parts:
        if part not in STRATEGIES:
            raise UserError(
                f"config.tuning.name is {name!r}: expected one of {', '.join(STRATEGIES)}, or"
                f" several joined by +.{nearest(part, STRATEGIES)}"
            )
    if len(parts) > 1 and "gradual" in parts:
        raise UserError(
            f"config.tuning.name is {name!r}: gradual decides on every parameter in each stage, so"
            " it cannot be joined with another strategy."
        )
    given = {key: value for key, value in fields.items() if value not in (None, ())}
    known = {part: {field.name for field in dataclasses.fields(STRATEGIES[part])} for part in parts}
    for key in given:
        if not any(key in names for names in known.values()):
            raise UserError(f"config.tuning.{key} is set, but the strategy {name!r} has no {key}.")
    strategies = []
    for part in parts:
        for field in dataclasses.fields(STRATEGIES[part]):
            if field.default is dataclasses.MISSING and field.name not in given:
                raise UserError(
                    f"config.tuning.{field.name} must be set for the strategy {part!r}."
                )
        own = dict(defaults.get(part, {}))
        own |= {key: value for key, value in given.items() if key in known[part]}
        if own.get("targets") == ():
            raise UserError(
                f"config.tuning.name is {name!r}: {part} acts on matrices of attention and"
                " feed-forward blocks, of which this model has none. Choose another strategy, or"
                " name other matrices in config.tuning.targets."
            )
        strategies.append(STRATEGIES[part](**own))
    return strategies[0] if len(strategies) == 1 else Union(tuple(strategies))
