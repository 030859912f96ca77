"""How the run went: losses, scores and the learning rate against steps."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtune.reporting.facts import Facts
from jaxtune.reporting.figures import COLOURS, colour
from jaxtune.reporting.parts import Plot, Section

_BELOW_ONE = (
    *("accuracy", "macro_f1", "micro_f1", "subset_accuracy", "f1", "precision", "recall"),
    *("exact_match", "has_answer_f1", "no_answer_f1", "pearson", "spearman", "mcc"),
)
"""Scores that share one figure, as they are at most 1."""

Series = tuple[str, list[int], list[float]]
"""Name, steps, values."""


def section(facts: Facts) -> Section | None:
    """Learning curves; None where nothing was logged."""
    best = facts.results.get("best_step")
    names = dict.fromkeys(name for row in facts.metrics for name in row)
    scores = [name for name in names if name.startswith("validation/")]
    losses = [name for name in ("train/loss", "validation/loss") if name in names]
    shared = [name for name in scores if name.partition("/")[2] in _BELOW_ONE]
    others = [name for name in scores if name not in (*shared, "validation/loss")]
    groups = [("loss", losses, "loss"), ("scores", shared, "score on validation")]
    groups += [(_file(name), [name], name.partition("/")[2]) for name in others]
    groups += [("learning_rate", ["train/learning_rate"], "learning rate")]
    plots = []
    for file, members, label in groups:
        series = [found for name in members if (found := _series(facts, name))[1]]
        if series:
            plots.append(Plot(file, f"{label} against steps", _painter(series, label, best)))
    if not plots:
        return None
    metric = facts.results.get("best_metric")
    note = f"The dashed line is the best step, {best}, by {metric} on validation."
    return Section("Learning curves", [note] if best is not None else [], plots)


def _file(name: str) -> str:
    return name.replace("/", "_")


def _series(facts: Facts, name: str) -> Series:
    rows = [row for row in facts.metrics if isinstance(row.get(name), int | float)]
    return name, [row["step"] for row in rows], [float(row[name]) for row in rows]


def _painter(series: Sequence[Series], label: str, best: int | None) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        for i, (name, steps, values) in enumerate(series):
            shown = name.partition("/")[2] if len(series) > 1 and label != "loss" else name
            marker = "o" if name.startswith("validation/") or len(steps) == 1 else None
            axes.plot(steps, values, color=colour(i), label=shown, marker=marker, markersize=3)
        if best is not None and best > 0:
            axes.axvline(best, color=COLOURS["ink"], linestyle="--", linewidth=0.9)
        axes.set(xlabel="step", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(series) > 1:
            axes.legend(fontsize=8)

    return paint
