"""What becomes of precision, recall and F1 where a decision is made at another threshold."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxtune.reporting.figures import COLOURS, colour
from jaxtune.reporting.parts import Plot, Section, Table, number
from jaxtune.run.predictions_folder import Kept
from jaxtune.tasks.probabilities import sigmoid

STEPS = np.arange(1, 100) / 100
_DRAWN = 6  # classes with a figure of their own
_MOST_ROWS = 100


class Curve(NamedTuple):
    """At each of s thresholds."""

    precision: Float[np.ndarray, " s"]
    recall: Float[np.ndarray, " s"]
    f1: Float[np.ndarray, " s"]


def curve(right: Float[np.ndarray, " p"], all_found: np.ndarray, total: int) -> Curve:
    """Decisions that a class applies where its probability is above a threshold.

    Args:
      right: probabilities of the decisions that should be made and can be.
      all_found: of all decisions that can be made, right or wrong.
      total: decisions that should be made.
    """
    hits, found = (
        len(part) - np.searchsorted(np.sort(part), STEPS, "right") for part in (right, all_found)
    )
    both = found + total
    precision = np.divide(hits, found, out=np.zeros(len(STEPS)), where=found > 0)
    recall = np.divide(hits, total, out=np.zeros(len(STEPS)), where=total > 0)
    return Curve(
        precision, recall, np.divide(2.0 * hits, both, out=np.zeros(len(STEPS)), where=both > 0)
    )


def of_sets(kept: Kept, names: Sequence[str]) -> Section:
    """Of all classes together, and of each."""
    logits, arrays = kept.arrays["logits"], kept.arrays
    classes = arrays.get("classes", np.broadcast_to(np.arange(logits.shape[1]), logits.shape))
    found = sigmoid(logits.astype(np.float64))
    own, label_classes = arrays["label_logits"], arrays["label_classes"]
    known = own == own
    right, of_right = sigmoid(own[known].astype(np.float64)), label_classes[known]
    overall = curve(right, found.ravel(), len(label_classes))
    counts = np.bincount(label_classes, minlength=len(names))
    order = np.argsort(-counts[: len(names)], kind="stable")
    drawn = [("threshold", "all classes together", overall)]
    rows = [_row("all classes", overall)]
    places = classes.ravel().argsort(kind="stable")  # the decisions of a class stand together
    ends = np.searchsorted(classes.ravel()[places], np.arange(len(names) + 1))
    flat = found.ravel()[places]
    for rank, c in enumerate([int(i) for i in order[:_MOST_ROWS]]):
        own_curve = curve(right[of_right == c], flat[ends[c] : ends[c + 1]], int(counts[c]))
        rows.append(_row(names[c], own_curve))
        if rank < _DRAWN:
            drawn.append((f"threshold_{rank + 1}", names[c], own_curve))
    notes = [
        "A class applies where its probability is above the threshold; prediction takes 0.5. A"
        " threshold that is chosen on these rows will do a little worse on others."
    ]
    if "classes" in arrays:
        notes.append(
            f"Of each row the {logits.shape[1]} likeliest of {len(names):,} classes were kept:"
            " below their probabilities precision looks too good."
        )
    plots = [
        Plot(file, f"precision, recall and F1 against the threshold: {title}", _painter(part))
        for file, title, part in drawn
    ]
    header = ("class", "F1 at 0.5", "best F1", "at the threshold")
    return Section("Thresholds", notes, plots, [Table(header, rows, folded=len(rows) > 30)])


def of_answers(kept: Kept) -> Section | None:
    """F1 and exact match against the threshold for no answer; None where one is always given."""
    arrays = kept.arrays
    margins = arrays["margins"]
    if not arrays["may_lack"].any() or not np.isfinite(margins).any():
        return None
    thresholds, f1, exact = no_answer_curve(arrays)
    best, now = int(f1.argmax()), float(arrays["thresholds"][0])
    notes = [
        "A question has no answer where the score for that exceeds the best answer's by more than"
        f" the threshold, config.data.no_answer_threshold, which was {now:g}. The best on these"
        f" rows is {thresholds[best]:.3g} nats, with F1 {f1[best]:.4f}; on others it will do a"
        " little worse."
    ]

    def paint(axes: Any) -> None:
        for i, (label, values) in enumerate((("F1", f1), ("exact match", exact))):
            axes.plot(thresholds, values, color=colour(i), label=label)
        axes.axvline(now, color=COLOURS["ink"], linestyle="--", linewidth=0.9)
        axes.set(xlabel="threshold (nats)", ylabel="score")
        axes.legend(fontsize=8)

    plot = Plot("threshold", "F1 and exact match against the no-answer threshold", paint)
    return Section("No-answer threshold", notes, [plot])


def no_answer_curve(arrays: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, and the mean F1 and exact match at each.

    Args:
      arrays: of an outcome of answers; a margin that is NaN leaves only the empty answer.
    """
    margins = np.where(np.isnan(arrays["margins"]), np.inf, arrays["margins"])
    finite = margins[np.isfinite(margins)]
    thresholds = np.linspace(finite.min() - 1.0, finite.max() + 1.0, 201)
    answered = margins[None, :] <= thresholds[:, None]  # [s n]
    f1 = np.where(answered, arrays["span_f1"], arrays["none_f1"]).mean(axis=1)
    exact = np.where(answered, arrays["span_exact"], arrays["none_f1"]).mean(axis=1)
    return thresholds, f1, exact


def _row(name: str, part: Curve) -> tuple[str, str, str, str]:
    best, half = int(part.f1.argmax()), int(np.argmin(np.abs(STEPS - 0.5)))
    return name, number(part.f1[half], 3), number(part.f1[best], 3), f"{STEPS[best]:.2f}"


def _painter(part: Curve) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        for i, (label, values) in enumerate(part._asdict().items()):
            axes.plot(STEPS, values, color=colour(i), label=label.replace("f1", "F1"))
        axes.axvline(0.5, color=COLOURS["ink"], linestyle="--", linewidth=0.9)
        axes.set(xlabel="threshold", ylabel="score", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=8)

    return paint
