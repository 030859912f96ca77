"""Which learning rate a sweep suggests: the steepest fall of the smoothed loss."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

BETA = 0.9
"""Share of the old average in the smoothed loss."""

MIN_POINTS = 20
"""A sweep of fewer points says nothing."""


NOISE = 1.5
"""Pure noise falls by more than this in less than one sweep of a hundred."""


class Suggestion(NamedTuple):
    """What a sweep says.

    Attributes:
      steepest: the rate at which the loss falls fastest; None where it does not fall.
      lowest: the rate at which the smoothed loss is lowest; None likewise.
      reason: why there is none, else empty.
    """

    steepest: float | None
    lowest: float | None
    reason: str


def smooth(losses: Float[np.ndarray, " n"], beta: float = BETA) -> Float[np.ndarray, " n"]:
    """The exponential moving average without its bias to 0 at the start.

    `a_k = beta a_(k-1) + (1 - beta) l_k` from `a_(-1) = 0`, divided by `1 - beta^(k+1)`.
    """
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = beta * average + (1 - beta) * float(loss)
        smoothed.append(average / (1 - beta**count))
    return np.array(smoothed)


def suggest(rates: Float[np.ndarray, " n"], losses: Float[np.ndarray, " n"]) -> Suggestion:
    """Finds the steepest descent of the loss against the logarithm of the rate.

    What follows the lowest point of the smoothed loss is left out, as is the first tenth, whose
    average is over too few steps. The rest is smoothed forwards and backwards and the two are
    averaged: smoothed forwards alone the descent lags, and the suggestion is two to three times
    too high. Slopes are taken over a tenth of the sweep. A loss that falls by less than NOISE
    times what two successive batches typically differ by has not fallen.

    Args:
      rates: learning rates, increasing.
      losses: of the batches; those from the first that is not finite on are left out.

    Source: Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3; the rules
    `steep` and `minimum` (a tenth of the lowest point's rate) of fastai's learner.lr_find.
    """
    good = int(np.argmin(np.append(np.isfinite(losses), False)))
    rates, losses = rates[:good], losses[:good]
    if good < MIN_POINTS:
        return Suggestion(None, None, f"there are only {good} finite losses")
    start, half = good // 10, max(1, good // 20)
    smoothed = smooth(losses)
    fall, stop = smoothed[start] - smoothed.min(), int(np.argmin(smoothed)) + 1
    curve = (smoothed[:stop] + smooth(losses[:stop][::-1])[::-1]) / 2
    noise = float(np.median(np.abs(np.diff(losses[:stop])))) if stop > 1 else 0.0
    x, y = np.log(rates[start:stop]), curve[start:]
    if len(y) <= 2 * half or fall <= NOISE * noise:
        return Suggestion(None, None, "the loss never fell by more than batches differ")
    slopes = (y[2 * half :] - y[: -2 * half]) / (x[2 * half :] - x[: -2 * half])
    steepest = start + half + int(np.argmin(slopes))
    return Suggestion(float(rates[steepest]), float(rates[stop - 1]), "")
