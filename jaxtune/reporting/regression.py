"""The sections of a regression: predicted against target, and what is left."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxtune.reporting import errors, slices
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.figures import COLOURS, colour
from jaxtune.reporting.parts import Plot, Section, Table, number
from jaxtune.run.predictions_folder import Kept

_DRAWN = 2000  # dots of a figure
_MOST = 4  # targets with figures


def sections(facts: Facts, kept: Kept, column: Any) -> list[Section | None]:
    """Of rows with one or several numbers each."""
    predicted, targets = (
        kept.arrays[name].astype(np.float64) for name in ("predictions", "targets")
    )
    count = targets.shape[1]
    data = facts.config["data"]
    names = data.get("label_columns") or [data.get("label_column", "label")]
    off = predicted - targets
    plots, rows = [], []
    for k in range(count):
        label = names[k] if len(names) == count else f"target {k + 1}"
        rows.append(_row(label, off[:, k], targets[:, k]))
        if k >= _MOST:
            continue
        end, more = (f"_{k + 1}", f": {label}") if count > 1 else ("", "")
        plots += [
            Plot(
                f"predicted{end}",
                f"predicted against target{more}",
                _dots(predicted[:, k], targets[:, k]),
            ),
            Plot(f"residuals{end}", f"predicted minus target{more}", _bars(off[:, k])),
        ]
    header = ("target", "mean error", "mean absolute error", "root of mean square", "R²")
    notes = []
    if len(off) > _DRAWN:
        notes.append(f"Of {len(off):,} rows every {-(-len(off) // _DRAWN)}th is drawn as a dot.")
    measures = [
        ("mean absolute error", slices.mean(np.abs(off).mean(axis=1))),
        ("mean square", slices.mean((off**2).mean(axis=1))),
    ]
    return [
        Section("Residuals", notes, plots, [Table(header, rows)]),
        slices.section(kept, measures, column),
        errors.section(
            kept, (), "Largest errors", "Chosen by the distance from the target, in its deviations."
        ),
    ]


def _row(label: str, off: np.ndarray, targets: np.ndarray) -> tuple[str, ...]:
    spread = float(np.square(targets - targets.mean()).sum())
    explained = 1.0 - float(np.square(off).sum()) / spread if spread else None
    values = (off.mean(), np.abs(off).mean(), np.sqrt(np.square(off).mean()))
    return label, *(number(float(value)) for value in values), number(explained)


def _dots(predicted: np.ndarray, targets: np.ndarray) -> Callable[[Any], None]:
    step = -(-len(predicted) // _DRAWN) or 1

    def paint(axes: Any) -> None:
        low, high = (float(f(targets)) for f in (np.min, np.max))
        axes.plot([low, high], [low, high], color=COLOURS["ink"], linestyle=":", linewidth=0.9)
        size = 12 if len(targets) < _DRAWN // 4 else 7
        axes.scatter(targets[::step], predicted[::step], size, color=colour(0), alpha=0.5, lw=0)
        axes.set(xlabel="target", ylabel="predicted")

    return paint


def _bars(off: np.ndarray) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        axes.hist(off, bins=min(40, max(5, int(len(off) ** 0.5))), color=colour(0))
        axes.axvline(0.0, color=COLOURS["ink"], linestyle=":", linewidth=0.9)
        axes.set(xlabel="predicted minus target", ylabel="rows")

    return paint
