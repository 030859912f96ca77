"""How far probabilities can be believed.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks, sections 2 and 4.
"""

import numpy as np
from jaxtyping import Float, Int


def expected_calibration_error(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = 15
) -> float:
    """`sum_b (n_b / n) |accuracy_b - confidence_b|` over bins of equal width of the confidence.

    Args:
      probabilities: of c classes; the confidence of a row is its largest.
      labels: the right class of each row; one beyond c is never predicted.
      bins: over (0, 1]; each holds its upper end.
    """
    sure = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, right - sure, bins)  # n_b times the gap of each bin
    return float(np.abs(gaps).sum() / len(sure))
