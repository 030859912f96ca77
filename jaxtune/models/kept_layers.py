"""A model of some of a folder's layers: a student whose layers are copied from its teacher.

Source: Sanh et al. 2019, DistilBERT, section 3, which takes every other layer.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.models.source import Source

_COUNTS = ("num_hidden_layers", "n_layers", "n_layer")
"""What the families call the number of their layers."""

_WHERE = "config.model.layers"


def keep_layers(source: Source, chosen: Sequence[str]) -> Source:
    """What a model with some of the layers is; its weights are those of the folder's layers.

    Args:
      source: of the whole model.
      chosen: numbers of layers from 0, in increasing order, or one `every N`; () for all.

    Raises:
      UserError: a family whose layers share weights or differ in shape, or layers that it has not.
    """
    if not chosen:
        return source
    family, hf_config = source.family, source.hf_config
    field = next((name for name in _COUNTS if hasattr(source.config, name)), None)
    if field is None or family.model_type == "albert":
        why = "its layers share their weights" if field else "its layers differ in shape"
        raise UserError(
            f"{_WHERE} is {','.join(chosen)!r}, but {source.path} is {family.model_type}: {why}."
            " Expected (), all of them."
        )
    layers = _parse(chosen, getattr(source.config, field), source)
    hf_config = hf_config | {field: len(layers)}
    if hasattr(source.config, "is_global"):  # which kind a layer is goes with it
        kinds = ("sliding_attention", "full_attention")
        hf_config |= {"layer_types": [kinds[source.config.is_global(i)] for i in layers]}
    config = family.config_from_hf(hf_config, str(source.path / "config.json"))
    return source._replace(config=config, hf_config=hf_config, layers=layers)


def file_leaf(leaf: str, layers_regex: str, layers: Sequence[int] | None) -> str:
    """The name that the folder gives what is this leaf of the model with fewer layers."""
    found = None if layers is None else re.search(layers_regex, leaf)
    if found is None or layers is None:
        return leaf
    start, stop = found.span(1)
    return f"{leaf[:start]}{layers[int(leaf[start:stop])]}{leaf[stop:]}"


def split_left(
    names: Iterable[str], layers_regex: str, layers: Sequence[int] | None
) -> tuple[list[str], list[str]]:
    """Of tensors that no leaf took, those that are of no layer, and those of chosen layers.

    Args:
      names: as the files spell them; those of layers that are left out are in neither list.
      layers_regex: the family's, whose first group is a layer's place.
      layers: those that are chosen; None for all, where every tensor is in the first list.
    """
    others, own = [], []
    for name in names:
        found = None if layers is None else re.search(layers_regex, name.replace(".", "/"))
        if found is None or layers is None:
            others.append(name)
        elif int(found[1]) in layers:
            own.append(name)
    return others, own


def _parse(chosen: Sequence[str], count: int, source: Source) -> tuple[int, ...]:
    """The numbers of the layers."""
    told = f"{_WHERE} is {','.join(chosen)!r}"
    every = re.fullmatch(r"every[ :]*([1-9]\d*)", chosen[0]) if len(chosen) == 1 else None
    if every is not None:
        return tuple(range(0, count, int(every[1])))
    numbers: list[Any] = [int(text) if re.fullmatch(r"\d+", text) else None for text in chosen]
    good = all(n is not None and n < count for n in numbers) and numbers == sorted({*numbers})
    if not good:
        raise UserError(
            f"{told}, but {source.path} has {count} layers: expected numbers from 0 to {count - 1}"
            " in increasing order, such as 0,2,4, or every 2."
        )
    return tuple(numbers)
