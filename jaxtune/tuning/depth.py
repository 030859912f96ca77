"""Where each parameter stands between input and output, read off its name."""

from typing import Any

import jax

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.tuning.partition import FROZEN, TRAINABLE

LAYERS = r"(?:^|/)layer/(\d+)/"
"""Names of the encoder's layers in jaxtune's models; the group is the index."""

BELOW = r"(?:^|/)embeddings/"
"""Names of what lies below the first layer."""


def depths(params: Params, layers: str, below: str | None) -> tuple[list[int | None], int]:
    """The depth of each leaf.

    Args:
      params: any tree; only names are read.
      layers: a regex whose groups are a layer's place, counted from the input: its index, or a
        stage and the index in it, which is 0 where that group has no part in a match.
      below: a regex for what lies below the first layer; None where nothing does.

    Returns:
      (depths, number of layers). A depth is -1 below the first layer, an index in a layer, and
      None above the last; the order is that of `jax.tree.leaves`.

    Raises:
      UserError: a regex that is none, has no group of digits, or matches no parameter.
    """
    names = paths.leaf_names(params)
    pattern = paths.compile_pattern(layers)
    lower = None if below is None else paths.compile_pattern(below)
    places: list[tuple[int, ...] | None] = []
    for name in names:
        match = pattern.search(name)
        found = match.groups() if match else ()
        groups = ["0" if i and group is None else group or "" for i, group in enumerate(found)]
        if match and not (groups and all(map(str.isdigit, groups))):
            raise UserError(f"the regex {layers!r} has no group for a layer's index in {name!r}.")
        places.append(tuple(map(int, groups)) if match else None)
    order = {place: i for i, place in enumerate(sorted({p for p in places if p is not None}))}
    found = [
        order[place] if place is not None else -1 if lower and lower.search(name) else None
        for name, place in zip(names, places, strict=True)
    ]
    for field, regex, matched in (
        ("layers", layers, any(depth is not None and depth >= 0 for depth in found)),
        ("below", below, lower is None or any(map(lower.search, names))),
    ):
        if regex is not None and not matched:
            raise UserError(
                f"no parameter matches {regex!r}.{paths.nearest_names(regex, names)} Set `{field}`"
                f" to a regex for this model's names{', or None' if field == 'below' else ''}."
            )
    return found, 1 + max(depth for depth in found if depth is not None)


def frozen_layers(labels: Any, layers: str, below: str | None, runs: int) -> int:
    """How many layers, counted from the input, are frozen with all that lies below them.

    Args:
      labels: of the parameters.
      layers: as in `depths`.
      below: as in `depths`.
      runs: how many layers run; more than there are names for where they share their parameters.

    Returns:
      0 where the lowest layer is trained, or anything below it.
    """
    found, total = depths(labels, layers, below)
    trained = [
        total if depth is None else max(depth, 0)
        for depth, label in zip(found, jax.tree.leaves(labels), strict=True)
        if label != FROZEN
    ]
    lowest = min(trained, default=total)
    return runs if lowest == total else lowest


def train_from(params: Params, found: list[int | None], lowest: int) -> Any:
    """TRAINABLE for the layers from `lowest` on and what stands above them, FROZEN below.

    Args:
      params: the tree that is labelled.
      found: the depth of each leaf, from `depths`.
      lowest: index of the lowest layer that is trained.
    """
    labels = [TRAINABLE if depth is None or depth >= lowest else FROZEN for depth in found]
    return jax.tree.unflatten(jax.tree.structure(params), labels)


def check_count(num_layers: int, total: int) -> None:
    """Refuses a number of layers that the model does not have."""
    if not 0 <= num_layers <= total:
        raise UserError(
            f"config.tuning.num_layers is {num_layers}, but the model has {total} layers: expected"
            f" 0 to {total}. Layers that share their parameters, as ALBERT's, are one here."
        )
