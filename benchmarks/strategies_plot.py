"""Scores against the operations of training, a panel a task, with the efficient strategies."""

import io
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from strategies_results import Results
from strategies_rows import ROWS, TASKS

from jaxtune.io.atomic import write_atomic

_STYLE: Any = {
    **{"svg.fonttype": "none", "svg.hashsalt": "jaxtune", "font.family": "sans-serif"},
    **{"font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True},
}
_EFFICIENT, _OTHER = "#0072b2", "#a0a0a0"


class Point(NamedTuple):
    """A strategy: operations as a share of those of `full`, mean score and its deviation."""

    name: str
    share: float
    score: float
    spread: float


def points(results: Results, task: str) -> list[Point]:
    """Those of which the operations are known and a score is."""
    found = []
    for strategy in ROWS:
        plans = results.find("rate", task, strategy=strategy)
        scores = [one["score"] for one in results.find("score", task, strategy=strategy)]
        if plans and scores and plans[0]["flops"] and plans[0]["full_flops"]:
            share = plans[0]["flops"] / plans[0]["full_flops"]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            found.append(Point(strategy, share, statistics.mean(scores), spread))
    return found


def efficient(found: list[Point]) -> list[Point]:
    """Those that no other point beats: none costs less and scores as high, or the other way."""
    best: list[Point] = []
    for point in sorted(found, key=lambda point: (point.share, -point.score)):
        if not best or point.score > best[-1].score:
            best.append(point)
    return best


def plot(results: Results, file: Path) -> None:
    """Writes an SVG, the same bytes for the same results."""
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot nothing is global

    panels = {task: points(results, task) for task in TASKS}
    panels = {task: found for task, found in panels.items() if found}
    if not panels:
        raise SystemExit(f"{results.file} has no scores to plot.")
    with matplotlib.rc_context(_STYLE):
        rows = -(-len(panels) // 2)
        figure = Figure(figsize=(10, 3.8 * rows), layout="constrained")
        for place, (task, found) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(rows, min(2, len(panels)), place)
            _paint(axes, found)
            axes.set(title=TASKS[task].title, xlabel="training FLOPs, as a share of full")
        stream, metadata = io.BytesIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=metadata)
    lines = stream.getvalue().decode().splitlines()
    write_atomic(file, "\n".join(line.rstrip() for line in lines) + "\n")


def _paint(axes: Any, found: list[Point]) -> None:
    best = efficient(found)
    for group, colour in (([p for p in found if p not in best], _OTHER), (best, _EFFICIENT)):
        for point in group:
            spread = point.spread or None
            axes.errorbar(point.share, point.score, spread, fmt="o", color=colour, elinewidth=0.8)
    axes.plot([p.share for p in best], [p.score for p in best], color=_EFFICIENT, linewidth=0.8)
    axes.margins(y=0.15)
    low, high = axes.get_ylim()
    floor = low
    for point in best:  # what lies above and left of an efficient point is empty
        place = max(point.score, floor)
        floor = place + 0.05 * (high - low)  # above the label before it
        axes.annotate(
            point.name, (point.share, place), (-4, 4), textcoords="offset points",
            ha="right", va="bottom", color=_EFFICIENT, fontsize=8,
        )  # fmt: skip
    axes.set_ylim(low, max(high, floor + 0.05 * (high - low)))
    axes.set_xlim(0, max(1.05, *(point.share + 0.05 for point in found)))
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:.0%}")
