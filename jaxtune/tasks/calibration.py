"""Probabilities that are as high as the predictions are right: one temperature for all logits.

The logits are divided by it, which changes no prediction. Where the labels are classes [n], the
probabilities are a softmax over the classes; where they are flags [n c], a sigmoid of each logit.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks, sections 2 and 4.2.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxtune.tasks.probabilities import sigmoid, softmax

BINS = 15
FEWEST = 20
"""Rows that a temperature is fitted on; from fewer it would follow from chance."""

_VALUES = 1 << 21  # logits in work at a time, in float64
_CLOSE = 1e-10  # relative change of 1 / T at which the search ends
_LARGEST = 1e9  # of 1 / T, which is sought from 1 on
_MOST_STEPS = 200  # of the search; a few are enough


class Calibration(NamedTuple):
    """What was found on held-out rows.

    Attributes:
      temperature: that the logits are divided by; None where none is fitted.
      ece: the expected calibration error of the logits as they are.
      ece_calibrated: the same, divided by the temperature; None without one.
      reason: why none is fitted; empty where one is.
    """

    temperature: float | None
    ece: float
    ece_calibrated: float | None
    reason: str = ""


def calibrate(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n *c"]) -> Calibration:
    """The temperature of held-out rows, if they tell of one, and what it does.

    Args:
      logits: of n rows, of which none was learnt from.
      labels: as of `fit_temperature`.
    """
    if not np.isfinite(logits).all():
        return Calibration(None, 1.0, None, "some logits of validation are not finite")
    before = _ece(logits, labels, 1.0, BINS)
    if len(logits) < FEWEST:
        reason = f"validation has {len(logits)} rows, fewer than {FEWEST}"
        return Calibration(None, before, None, reason)
    found = fit_temperature(logits, labels)
    if found is None:
        reason = "all of validation is right, or no better than chance"
        return Calibration(None, before, None, reason)
    found = float(f"{found:.6g}")  # as it is written and read
    return Calibration(found, before, _ece(logits, labels, found, BINS))


def fit_temperature(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n *c"]
) -> float | None:
    """The T > 0 with the least negative log-likelihood of the labels, given `logits / T`.

    That is convex in b = 1 / T, so there is one. Newton's method finds where its derivative, of
    which the sign tells on which side b is, becomes 0.

    Args:
      logits: of n rows, all finite.
      labels: the class of each row [n], below c; or flags [n c], 1 where a class applies.

    Returns:
      T; None where the loss goes on falling with b, as all predictions are right, or is least at
      b = 0, as the logits tell less than chance.
    """
    if _slope(logits, labels, 0.0)[0] >= 0 or not _are_any_wrong(logits, labels):
        return None
    low, high = 0.0, 1.0
    while _slope(logits, labels, high)[0] < 0:
        low, high = high, 2 * high
        if high > _LARGEST:
            return None
    b = high
    for _ in range(_MOST_STEPS):
        slope, curvature = _slope(logits, labels, b)
        low, high = (b, high) if slope < 0 else (low, b)
        newton = b - slope / curvature if curvature > 0 else low
        better = newton if low < newton < high else (low + high) / 2
        if abs(better - b) <= _CLOSE * b:
            break
        b = better
    return 1 / b


def expected_calibration_error(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n *c"], bins: int = BINS
) -> float:
    """The mean gap between how sure predictions are and how often they are right, 0 to 1.

    Of classes, the probability of the likeliest one against whether it is the right one; of flags,
    each probability against whether the class applies. Bins have equal widths, and each the share
    of the predictions in it as its weight.

    Args:
      probabilities: of n rows.
      labels: as of `fit_temperature`; a class beyond c is never right.
      bins: from 0 to 1; an edge belongs to the bin below it.

    Source: Guo et al. 2017, equation 3; Naeini et al. 2015.
    """
    return _error([_bin_sums(probabilities, labels, bins)])


def _ece(logits: np.ndarray, labels: np.ndarray, temperature: float, bins: int) -> float:
    """As `expected_calibration_error`, of logits."""
    parts = _parts(logits, labels)
    return _error([_bin_sums(_probabilities(z / temperature, y), y, bins) for z, y in parts])


def _error(sums: list[Float64[np.ndarray, "3 m"]]) -> float:
    sure, right, counts = np.sum(sums, axis=0)
    return float(np.abs(sure - right).sum() / max(counts.sum(), 1))


def _bin_sums(
    probabilities: np.ndarray, labels: np.ndarray, bins: int
) -> Float64[np.ndarray, "3 m"]:
    if labels.ndim == 1:
        right = np.argmax(probabilities, axis=1) == labels
        return bin_sums(probabilities.max(axis=1), right, bins)
    return bin_sums(probabilities.ravel(), labels.ravel() > 0.5, bins)


def bin_sums(
    sure: Float[np.ndarray, " n"], right: np.ndarray, bins: int = BINS
) -> Float64[np.ndarray, "3 m"]:
    """Predictions by how sure they are.

    Args:
      sure: the probability of each.
      right: whether each is right.
      bins: from 0 to 1, of equal width; an edge belongs to the bin below it.

    Returns:
      Of each bin, the sum of the probabilities, of those that are right, and of all.
    """
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], sure)
    weights = (sure.astype(np.float64), right.astype(np.float64), np.ones(len(sure)))
    return np.stack([np.bincount(places, part, bins) for part in weights])


def _slope(logits: np.ndarray, labels: np.ndarray, b: float) -> tuple[float, float]:
    """First and second derivative by b of the summed loss at logits times b."""
    slope = curvature = 0.0
    for z, y in _parts(logits, labels):
        p = _probabilities(b * z, y)
        if y.ndim == 1:
            mean = (p * z).sum(axis=1)
            slope += float((mean - z[np.arange(len(z)), y]).sum())
            curvature += float((p * (z - mean[:, None]) ** 2).sum())
        else:
            slope += float((z * (p - y)).sum())
            curvature += float((z * z * p * (1 - p)).sum())
    return slope, curvature


def _are_any_wrong(logits: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the loss grows at last, as b does: it does where a wrong class has a larger logit."""
    if labels.ndim == 1:
        own = logits[np.arange(len(logits)), labels]
        return bool((own < logits.max(axis=1)).any())
    return bool(((logits > 0) != (labels > 0.5))[logits != 0].any())


def _probabilities(z: Float64[np.ndarray, "n c"], y: np.ndarray) -> Float64[np.ndarray, "n c"]:
    return sigmoid(z) if y.ndim > 1 else softmax(z)


def _parts(logits: np.ndarray, labels: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some rows at a time, the logits in float64."""
    size = max(_VALUES // max(logits.shape[1], 1), 1)
    for start in range(0, len(logits), size):
        part = slice(start, start + size)
        yield logits[part].astype(np.float64), np.asarray(labels[part])
