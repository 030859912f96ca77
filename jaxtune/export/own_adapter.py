"""Strategies that no model folder can hold, read from an adapter folder of jaxtune's own."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Params
from jaxtune.export import peft
from jaxtune.models.pretrained import Pretrained
from jaxtune.models.weights import Weights
from jaxtune.tuning import injection
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.partition import Strategy
from jaxtune.tuning.registry import make_strategy


def apply_own(
    folder: Path, config: dict[str, Any], base: Pretrained, weights: Weights
) -> tuple[Params, ApplyFn]:
    """The extended tree with the adapter's values, and the model on it.

    Args:
      folder: of the adapter, for messages.
      config: its `adapter_config.json`.
      base: the model that it was trained on.
      weights: of the adapter, by jaxtune's own names.

    Raises:
      UserError: `tuning` is no section of a run's settings, or the tensors are not those that its
        strategy adds.
    """
    tuning = config.get("tuning")
    if not isinstance(tuning, dict) or not isinstance(tuning.get("name"), str):
        raise UserError(
            f"{folder / peft.CONFIG}: tuning is {repr(tuning)[:80]}, expected the section of a"
            " run's config.json with the strategy's name and fields."
        )
    try:
        strategy = _make_strategy(tuning, base)
        flat, extend = paths.flatten(base.params), partial(injection.extend, strategy)
        shapes = paths.flatten(jax.eval_shape(extend, base.params, jax.random.key(0)))
    except UserError:
        raise
    except Exception as error:  # whatever values of other types lead to
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise UserError(
            f"{folder / peft.CONFIG}: tuning is {repr(tuning)[:200]}, which cannot be followed"
            f" ({reason}). Write it as the run did."
        ) from None
    added, found = {*shapes} - {*flat}, {*weights.shapes}
    for what, names in (("missing", added - found), ("left over", found - {*shapes})):
        if names:
            raise UserError(
                f"{folder / peft.WEIGHTS}: the tensor {min(names)!r} is {what}. The strategy"
                f" {tuning['name']!r} of {peft.CONFIG} asks for {len(added)} added tensors."
            )
    for name, shape in weights.shapes.items():
        weights.check_floating(name)
        if shape != shapes[name].shape:
            raise UserError(
                f"{folder / peft.WEIGHTS}: the tensor {name!r} has shape {list(shape)}, but"
                f" {peft.CONFIG} and the base model ask for {list(shapes[name].shape)}."
            )
        flat[name] = jnp.asarray(weights.read(name), jnp.float32)
    params = paths.unflatten({name: flat[name] for name in shapes})
    return params, injection.adapt(strategy, base.apply_fn)


def _make_strategy(tuning: dict[str, Any], base: Pretrained) -> Strategy:
    """The strategy of a section of settings."""
    unread = ("name", "batch_statistics", "frozen_dropout")  # by a strategy
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in tuning.items() if k not in unread
    }
    family, head = base.design.source.family, base.design.head
    defaults = family_fields(family, head, base.config, fields.get("placement"))
    return make_strategy(tuning["name"], fields, defaults)
