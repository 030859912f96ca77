"""Weights of classes in a loss, from the settings."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.errors import UserError, nearest

BALANCED = ("balanced",)


def class_weights(
    rules: Sequence[str], class_names: Sequence[str], counts: np.ndarray
) -> Float[Array, " c"] | None:
    """The weight of each class; None where all are 1.

    Args:
      rules: `NAME=WEIGHT` for some classes, or the one word `balanced`, which gives each class
        n / (c n_c), as scikit-learn does.
      class_names: c names in the order of the outputs.
      counts: n_c, how many training rows have each class.

    Raises:
      UserError: a rule that is malformed, names no class, or gives no positive weight.
    """
    if not rules:
        return None
    if tuple(rules) == BALANCED:
        return jnp.asarray(counts.sum() / (len(counts) * np.maximum(counts, 1)), jnp.float32)
    weights = dict.fromkeys(class_names, 1.0)
    for rule in rules:
        name, equals, number = rule.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not equals or not 0 < weight < float("inf"):
            raise UserError(
                f"config.loss.class_weights: found {rule!r}, expected NAME=WEIGHT with a positive"
                " weight, such as spam=2.5, or the one word balanced."
            )
        if name not in weights:
            raise UserError(
                f"config.loss.class_weights names the class {name!r}, but the data has"
                f" {', '.join(class_names)}.{nearest(name, class_names)}"
            )
        weights[name] = weight
    return jnp.asarray([weights[name] for name in class_names], jnp.float32)
