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


def fall(losses: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The curve whose steepest fall is looked for; NaN where it is not looked at.

    What follows the lowest point of the smoothed loss is left out, as is the first tenth, whose
    average is over too few steps, and all from the first loss on that is not finite. The rest is
    smoothed forwards and backwards and the two are averaged: smoothed forwards alone the descent
    lags, and the suggestion is two to three times too high.

    Args:
      losses: of the batches of a sweep.
    """
    curve = np.full(len(losses), np.nan)
    good = _finite(losses)
    if len(good):
        start, stop = len(good) // 10, int(np.argmin(smooth(good))) + 1
        both = (smooth(good[:stop]) + smooth(good[:stop][::-1])[::-1]) / 2
        curve[start:stop] = both[start:]
    return curve


def suggest(rates: Float[np.ndarray, " n"], losses: Float[np.ndarray, " n"]) -> Suggestion:
    """Finds the steepest descent of the loss against the logarithm of the rate.

    It is that of the curve `fall`, with slopes over a tenth of the sweep. A loss that falls by less
    than NOISE times what two successive batches typically differ by has not fallen.

    Args:
      rates: learning rates, increasing.
      losses: of the batches; those from the first that is not finite on are left out.

    Source: Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3; the rules
    `steep` and `minimum` (a tenth of the lowest point's rate) of fastai's learner.lr_find.
    """
    good = _finite(losses)
    if len(good) < MIN_POINTS:
        return Suggestion(None, None, f"there are only {len(good)} finite losses")
    start, half = len(good) // 10, max(1, len(good) // 20)
    smoothed = smooth(good)
    drop, stop = smoothed[start] - smoothed.min(), int(np.argmin(smoothed)) + 1
    noise = float(np.median(np.abs(np.diff(good[:stop])))) if stop > 1 else 0.0
    x, y = np.log(rates[start:stop]), fall(good)[start:stop]
    if len(y) <= 2 * half or drop <= NOISE * noise:
        return Suggestion(None, None, "the loss never fell by more than batches differ")
    slopes = (y[2 * half :] - y[: -2 * half]) / (x[2 * half :] - x[: -2 * half])
    steepest = start + half + int(np.argmin(slopes))
    return Suggestion(float(rates[steepest]), float(rates[stop - 1]), "")


def _finite(losses: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Those before the first that is not finite."""
    return losses[: int(np.argmin(np.append(np.isfinite(losses), False)))]
