"""Whether one run is better than another on the same rows, or only by the choice of these."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from jaxtune.studies.row_sums import RowSums

_RESAMPLES = 9999
_HELD = 1 << 22
"""Weights of rows that are in memory at a time."""


class Difference(NamedTuple):
    """Of two scores on the same rows.

    Attributes:
      scores: of the first run and of the second.
      low: of the interval of 95% for the second minus the first.
      high: its other end.
      p_value: the chance of a difference as large, either way, were the two runs alike.
      rows: how many.
    """

    scores: tuple[float, float]
    low: float
    high: float
    p_value: float
    rows: int

    @property
    def value(self) -> float:
        """The second minus the first."""
        return self.scores[1] - self.scores[0]


def difference(first: RowSums, second: RowSums, seed: int = 0) -> Difference:
    """The paired bootstrap and the paired permutation test of two scores.

    The interval is that of the percentiles of `scipy.stats.bootstrap`, over rows drawn with
    replacement, the same for both. For the p-value the two runs are exchanged on some rows, by
    chance: `(1 + #{|d*| >= |d|}) / (1 + #)`, as `scipy.stats.permutation_test` has it.

    Args:
      first: of n rows.
      second: of the same rows.
      seed: of what is drawn.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 15.
    """
    from scipy import stats

    width = max(first.width, second.width)
    first, second = first.widened(width), second.widened(width)
    n = first.sums.shape[0]
    rng = np.random.default_rng(seed)
    whole = np.ones((1, n))
    scores = tuple(float(run.of(whole)[0]) for run in (first, second))

    def resampled(drawn: Int[np.ndarray, "*b n"], axis: int = -1) -> Float64[np.ndarray, "*b"]:
        del axis  # the last one, always
        weights = _counts(drawn.reshape(-1, n).astype(np.int64), n)
        return (second.of(weights) - first.of(weights)).reshape(drawn.shape[:-1])

    batch = max(1, _HELD // n)
    bootstrap: Any = stats.bootstrap  # its annotations know newer names of arguments alone
    found = bootstrap(
        (np.arange(n),),
        resampled,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=batch,
        method="percentile",
        random_state=rng,
    ).confidence_interval
    p_value = _p_value(first, second, scores[1] - scores[0], batch, rng)
    return Difference((scores[0], scores[1]), float(found.low), float(found.high), p_value, n)


def _p_value(
    first: RowSums, second: RowSums, value: float, batch: int, rng: np.random.Generator
) -> float:
    """Of the permutation test."""
    n, hits, left = first.sums.shape[0], 0, _RESAMPLES
    least = abs(value) * (1.0 - 1e-9)  # equal ones are added up in another order
    while left:
        size = min(batch, left)
        kept = rng.integers(0, 2, (size, n)).astype(np.float64)
        mixed = [_mixed(first, second, kept), _mixed(first, second, 1.0 - kept)]
        hits += int(np.count_nonzero(np.abs(mixed[1] - mixed[0]) >= least))
        left -= size
    return (1 + hits) / (1 + _RESAMPLES)


def _mixed(
    first: RowSums, second: RowSums, kept: Float64[np.ndarray, "b n"]
) -> Float64[np.ndarray, " b"]:
    """The score of rows of the first run where `kept` is 1, and of the second elsewhere."""
    totals = (first.sums.T @ kept.T + second.sums.T @ (1.0 - kept).T).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return first.score(totals)


def _counts(drawn: Int[np.ndarray, "b n"], n: int) -> Float64[np.ndarray, "b n"]:
    """How often each row was drawn."""
    places = drawn + n * np.arange(len(drawn))[:, None]
    return np.bincount(places.ravel(), minlength=len(drawn) * n).reshape(-1, n).astype(np.float64)
