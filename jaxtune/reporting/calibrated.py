"""How far probabilities can be believed: a reliability diagram, with a temperature and without."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxtune.reporting.class_rows import ClassRows
from jaxtune.reporting.figures import COLOURS, colour
from jaxtune.reporting.parts import Plot, Section, Table, number
from jaxtune.tasks.calibration import BINS, bin_sums, expected_calibration_error


class Bins(NamedTuple):
    """Of the bins of equal width that have rows.

    Attributes:
      confidence: mean probability of the predicted class.
      accuracy: share of rows that are right.
      counts: rows.
    """

    confidence: Float[np.ndarray, " b"]
    accuracy: Float[np.ndarray, " b"]
    counts: np.ndarray


def reliability(sure: Float[np.ndarray, " n"], right: np.ndarray) -> Bins:
    """The bins over (0, 1], each with its upper end.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equations 2 and 3.
    """
    sums = bin_sums(sure, right)
    confidence, accuracy, counts = sums[:, sums[2] > 0]
    return Bins(confidence / counts, accuracy / counts, counts)


def section(rows: ClassRows, temperature: float | None, split: str) -> Section:
    """The calibration of a classification.

    Args:
      rows: of a split.
      temperature: that jaxtune.json has; None where none was fitted.
      split: their split.
    """
    right = rows.predicted == rows.labels
    versions = [("as they are", rows.probabilities())]
    notes = []
    if temperature is not None and rows.classes is not None:
        notes.append("Of so many classes only the likeliest were kept: no temperature is applied.")
    elif temperature is not None:
        versions.append((f"temperature {temperature:.3f}", rows.probabilities(temperature)))
        if split == "validation":
            notes.append("The temperature was fitted on these same rows, so expect less of it.")
    found, table = [], []
    for label, probabilities in versions:
        sure = probabilities.max(axis=1)
        error = expected_calibration_error(probabilities, rows.columns)
        table.append(
            (label, number(error), number(float(sure.mean())), number(float(right.mean())))
        )
        found.append((label, reliability(sure, right)))
    header = ("probabilities", "expected calibration error", "mean confidence", "accuracy")
    title = "accuracy against confidence; on the diagonal they are equal"
    counts = Plot("confidence", "rows by the confidence of their prediction", _bars(found[-1][1]))
    plots = [Plot("reliability", title, _lines(found)), counts]
    notes.insert(0, f"{BINS} bins of equal width; a bin's dot is as large as it has rows.")
    return Section("Calibration", notes, plots, [Table(header, table)])


def _lines(found: Sequence[tuple[str, Bins]]) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=COLOURS["ink"], linestyle=":", linewidth=0.9)
        for i, (label, bins) in enumerate(found):
            axes.plot(bins.confidence, bins.accuracy, color=colour(i), label=label)
            sizes = 6 + 60 * bins.counts / bins.counts.sum()
            axes.scatter(bins.confidence, bins.accuracy, sizes, color=colour(i))
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        if len(found) > 1:
            axes.legend(fontsize=8, loc="upper left")

    return paint


def _bars(bins: Bins) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        axes.bar(bins.confidence, bins.counts, width=0.8 / BINS, color=colour(0))
        axes.set(xlabel="confidence", ylabel="rows", xlim=(0, 1.02))

    return paint
