"""How far a share of few rows may be off."""

import math

_Z = 1.959963984540054
"""The 97.5% quantile of the normal distribution: intervals are of 95%."""


def wilson(hits: float, count: int) -> tuple[float, float]:
    """The score interval of a share: the p with `|hits/n - p| <= z sqrt(p (1 - p) / n)`.

    Args:
      hits: of n independent rows.
      count: n, at least 1.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    share, square = hits / count, _Z**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    spread = share * (1 - share) / count + square / (4 * count**2)
    half = _Z * math.sqrt(spread) / (1 + square / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def told(hits: float, count: int) -> str:
    """A share with its interval, such as `0.912 (0.890 to 0.930)`."""
    if not count:
        return "-"
    low, high = wilson(hits, count)
    return f"{hits / count:.3f} ({low:.3f} to {high:.3f})"
