"""Discriminative learning rates: a factor for each leaf, by its layer and by rules."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.tuning.depth import BELOW, LAYERS, depths


def rate_multipliers(
    params: Params,
    layer_decay: float | None = None,
    rules: Sequence[str] = (),
    *,
    layers: str = LAYERS,
    below: str | None = BELOW,
) -> Any:
    """The factor on the learning rate of each leaf.

    With n layers counted from the input, a leaf of layer i has `layer_decay ** (n - i)`, what lies
    below the first layer `layer_decay ** (n + 1)`, and what stands above the last 1. The factor of
    the first rule that matches, if any, is multiplied on that.

    Args:
      params: any tree; only names are read. It may be the whole tree, or the trainable part of a
        model whose layers are all still named in it.
      layer_decay: factor from one layer to the one below it; None is 1.
      rules: each is `REGEX=FACTOR`, such as `classifier/=10`.
      layers: a regex whose first group is a layer's index, counted from the input.
      below: a regex for what lies below the first layer; None for nothing.

    Returns:
      A tree of float with the structure of `params`.

    Raises:
      UserError: a rule that is malformed or matches nothing, or names without layers.

    Source: Howard and Ruder 2018, ULMFiT, section 3.2 (with 1 / 2.6 for layer_decay).
    """
    factors = [1.0] * len(paths.leaf_names(params))
    if layer_decay is not None:
        found, total = depths(params, layers, below)
        factors = [1.0 if depth is None else layer_decay ** (total - depth) for depth in found]
    if rules:
        scales = paths.match([*map(_parse, rules), (".*", 1.0)], params)
        factors = [a * b for a, b in zip(factors, jax.tree.leaves(scales), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), factors)


def _parse(rule: str) -> tuple[str, float]:
    pattern, equals, text = rule.rpartition("=")
    try:
        factor = float(text)
    except ValueError:
        factor = -1.0
    if not equals or not 0 < factor < float("inf"):
        raise UserError(
            f"config.optimizer.rate_multipliers: found {rule!r}, expected REGEX=FACTOR with a"
            " positive factor, such as 'classifier/=10'."
        )
    return pattern, factor
