"""Precision, recall, F1 and support of each class, and which classes are taken for which."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.reporting.class_rows import name
from jaxtune.reporting.figures import COLOURS, HEAT
from jaxtune.reporting.parts import Plot, Table, number

MOST_CLASSES = 20
"""In a matrix; of more, those that are confused the most."""

_MOST_ROWS = 100
_UNFOLDED = 30
_MOST_PAIRS = 10


class Scores(NamedTuple):
    """Of each of c classes; 0 where there is nothing to divide by, as scikit-learn has it."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def scores_of(true: np.ndarray, found: np.ndarray, hits: np.ndarray) -> Scores:
    """From how many rows have each class, how many are said to, and how many are both."""
    hits = hits.astype(np.float64)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)

    return Scores(share(hits, found), share(hits, true), share(2 * hits, true + found), true)


def single_scores(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], size: int
) -> Scores:
    """Of rows with one class each; labels beyond `size` are classes of none of the rows' scores."""
    hits = labels[labels == predicted]
    counts = [np.bincount(part, minlength=size)[:size] for part in (labels, predicted, hits)]
    return scores_of(*counts)


def class_table(
    scores: Scores, names: Sequence[str], what: str = "class", counted: str = "rows"
) -> Table:
    """A row for each class; of very many, the ones with the lowest F1.

    Args:
      scores: of c classes.
      names: of these.
      what: a class is called.
      counted: what there are of each.
    """
    order, title = np.arange(len(names)), ""
    if len(names) > _MOST_ROWS:
        occurring = np.flatnonzero(scores.support)
        lowest = np.argsort(scores.f1[occurring], kind="stable")
        order = occurring[lowest[:_MOST_ROWS]]
        title = f"The {len(order)} of {len(names)} classes with the lowest F1"
    rows = [
        (
            names[i],
            *(number(float(part[i]), 3) for part in (scores.precision, scores.recall, scores.f1)),
            f"{int(scores.support[i]):,}",
        )
        for i in order.tolist()
    ]
    header = (what, "precision", "recall", "F1", counted)
    return Table(header, rows, title or f"Each {what}", folded=len(rows) > _UNFOLDED)


def confusion(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], names: Sequence[str]
) -> tuple[Plot, list[str], Table]:
    """A figure of the matrix, what to know of it, and the pairs that are confused most.

    Args:
      labels: the right classes.
      predicted: those that were found.
      names: of the classes.
    """
    size = max(len(names), int(labels.max()) + 1)
    keys, counts = np.unique(labels * size + predicted, return_counts=True)
    rows, columns = np.divmod(keys, size)
    wrong = rows != columns
    errors = np.bincount(rows[wrong], counts[wrong], size)
    errors += np.bincount(columns[wrong], counts[wrong], size)
    notes, shown = [], np.arange(size)
    if size > MOST_CLASSES:
        shown = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
        notes.append(
            f"The matrix has the {MOST_CLASSES} of {size:,} classes that are confused the most."
        )
    place = np.full(size, -1)
    place[shown] = np.arange(len(shown))
    inside = (place[rows] >= 0) & (place[columns] >= 0)
    matrix = np.zeros((len(shown), len(shown)), np.int64)
    matrix[place[rows[inside]], place[columns[inside]]] = counts[inside]
    shown_names = [name(names, i) for i in shown.tolist()]
    worst = np.flatnonzero(wrong)[np.argsort(-counts[wrong], kind="stable")][:_MOST_PAIRS]
    pairs = [
        (name(names, int(rows[i])), name(names, int(columns[i])), f"{counts[i]:,}") for i in worst
    ]
    edge = 2.2 + 0.32 * len(shown)
    title = "right classes (rows) against predicted ones (columns); shares of each row"
    plot = Plot(
        "confusion", title, _painter(matrix, shown_names), (max(edge + 0.6, 4.5), max(edge, 3.4))
    )
    table = Table(("right", "predicted", "rows"), pairs, "What is taken for what", words=2)
    return plot, notes, table


def _painter(matrix: np.ndarray, names: Sequence[str]) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        from matplotlib.patches import Rectangle

        size = len(matrix)
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            value = float(share[row, column])
            box = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=HEAT, alpha=value, lw=0)
            axes.add_patch(box)
            ink = "#ffffff" if value > 0.45 else COLOURS["ink"]
            told = f"{matrix[row, column]:,}"
            axes.text(column, row, told, ha="center", va="center", color=ink, fontsize=7)
        short = [text if len(text) <= 18 else f"{text[:17]}…" for text in names]
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted", ylabel="right")
        axes.set_xticks(range(size), short, rotation=90)
        axes.set_yticks(range(size), short)
        axes.grid(visible=False)

    return paint
