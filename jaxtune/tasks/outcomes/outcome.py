"""What is kept of the outputs for n rows, so that nothing has to be computed again."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

Told = dict[str, Any]
"""Of one row, JSON-like: what was said and what is right; `texts`, where the examples have them."""


class Outcome(NamedTuple):
    """n rows.

    Attributes:
      arrays: by name; each kind of output has its own.
      lengths: of each row.
      badness: how wrong each row is, and how sure of it; 0 where it is right.
      tell: index of a row -> what is shown of it.
      unit: what `lengths` counts; empty where all rows are alike.
      names: of tags, by their index in the arrays.
    """

    arrays: Mapping[str, np.ndarray]
    lengths: Int[np.ndarray, " n"]
    badness: Float64[np.ndarray, " n"]
    tell: Callable[[int], Told]
    unit: str = "tokens"
    names: tuple[str, ...] = ()
