"""Blocks of text that a language model was scored on."""

from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxtune.tasks.outcomes.outcome import Outcome, Told

_SHARE = 0.25  # of the median of scored tokens: shorter blocks are worst by chance


def of_blocks(outputs: Float32[np.ndarray, "n 2"], examples: Any) -> Outcome:
    """Of a language model.

    Args:
      outputs: of each block, the log-likelihood of its scored tokens (nats) and their number.
      examples: n blocks.

    Returns:
      With `log_likelihoods` and `counts`, float64 [n]. A block is as bad as its mean loss; one of
      few scored tokens counts as right.
    """
    log_likelihoods, counts = outputs.astype(np.float64).T
    losses = -log_likelihoods / np.maximum(counts, 1)
    enough = counts >= max(1.0, _SHARE * float(np.median(counts)))

    def tell(i: int) -> Told:
        return {"loss": float(losses[i]), "tokens": int(counts[i])}

    arrays = {"log_likelihoods": log_likelihoods, "counts": counts}
    return Outcome(arrays, examples.lengths, np.where(enough, losses, 0.0), tell)
