"""What a task is: its loss, its metrics, and how its outputs read."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jaxtune.types import Batch, LossFn, Mean


class Task(NamedTuple):
    """One kind of thing to learn, as data.

    Attributes:
      name: as `config.task` spells it.
      problem_type: as transformers spells it in `config.json`.
      loss_fn: sum of losses and of weights of a batch.
      metrics_fn: sums and weights that add up over batches, by name; `loss` is one of them.
      scores_fn: (outputs [n c], labels [n]) -> all scores, by name.
      best_metric: the score that chooses the best checkpoint where the config names none.
      higher_is_better: direction by score name.
      decode: (outputs [n c], class names) -> one JSON-like record for each row.
    """

    name: str
    problem_type: str
    loss_fn: LossFn
    metrics_fn: Callable[[Float[Array, "b c"], Batch], dict[str, Mean]]
    scores_fn: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    best_metric: str
    higher_is_better: Mapping[str, bool]
    decode: Callable[[np.ndarray, tuple[str, ...]], list[dict[str, Any]]]
