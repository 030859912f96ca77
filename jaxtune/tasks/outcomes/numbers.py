"""Rows with one or several numbers each: predictions and targets."""

from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxtune.tasks.outcomes.outcome import Outcome, Told


def of_numbers(outputs: Float32[np.ndarray, "n k"], examples: Any) -> Outcome:
    """Of a regression.

    Args:
      outputs: predictions.
      examples: with `labels`, targets, [n k], or [n] for one.

    Returns:
      With `predictions` and `targets`, float32 [n k].
    """
    targets = np.asarray(examples.labels, np.float32).reshape(outputs.shape)
    off = np.abs(outputs.astype(np.float64) - targets)
    spread = targets.astype(np.float64).std(axis=0)

    def tell(i: int) -> Told:
        return {"said": outputs[i].tolist(), "right": targets[i].tolist()}

    badness = (off / np.where(spread > 0, spread, 1.0)).max(axis=1)
    arrays = {"predictions": outputs, "targets": targets}
    return Outcome(arrays, examples.lengths, badness, tell)
