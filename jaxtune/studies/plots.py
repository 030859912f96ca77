"""What a study shows at a glance, as PNG."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtune.core.extras import check_extra
from jaxtune.io.atomic import write_atomic
from jaxtune.run.typed import output_of
from jaxtune.studies.compared import Comparison


def plot_of(text: str) -> Path:
    """The file of a plot, as typed.

    Raises:
      UserError: no .png, or no matplotlib.
    """
    file = output_of(text, (".png",), "plot")
    check_extra("--plot", "report", "matplotlib")
    return file


def plot_groups(found: Comparison, file: Path) -> None:
    """Each group's score, a dot a seed, with mean and deviation; of test where there is one."""
    splits = found.groups[0].scores
    split = "test" if "test" in splits else next(iter(splits))

    def paint(axes: Any) -> None:
        for place, part in enumerate(found.groups):
            results: list[Any] = [run.results for run in part.runs]
            values = [one["scores"].get(split, {}).get(found.metric) for one in results]
            known = [value for value in values if value is not None]
            axes.plot([place] * len(known), known, "o", color="C0", alpha=0.5)
            spread = part.scores.get(split, {}).get(found.metric)
            if spread is not None and spread.mean is not None and spread.known > 1:
                axes.errorbar(place, spread.mean, spread.deviation, fmt="_k", capsize=4)
        names = [_ending(part.name) for part in found.groups]
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set(ylabel=f"{split} {found.metric}", xlim=(-0.5, len(names) - 0.5))

    _save([paint], file)


def plot_trials(rows: Sequence[dict[str, Any]], metric: str, file: Path) -> None:
    """The score of each trial by each setting that was sought.

    Args:
      rows: of the trials, with `settings` by name and `score`; None where it is unknown.
      metric: what the score is called.
      file: a .png.
    """
    known = [row for row in rows if row["score"] is not None]
    names = list(known[0]["settings"]) if known else []

    def of(name: str) -> Any:
        def paint(axes: Any) -> None:
            values = [row["settings"][name] for row in known]
            for state, marker in (("complete", "o"), ("pruned", "x")):
                part = [i for i, row in enumerate(known) if row["state"] == state]
                xs, ys = [values[i] for i in part], [known[i]["score"] for i in part]
                if part:
                    axes.plot(xs, ys, marker, color="C0", label=state)
            numbers = [value for value in values if isinstance(value, float)]
            if len(numbers) == len(values) and min(numbers) > 0 and max(numbers) > 9 * min(numbers):
                axes.set_xscale("log")
            axes.set(xlabel=name, ylabel=f"validation {metric}")
            axes.legend()

        return paint

    if names:
        _save([of(name) for name in names], file)


def _save(paints: Sequence[Any], file: Path) -> None:
    from matplotlib.figure import Figure  # takes a second to import; without pyplot it is Agg

    figure = Figure(figsize=(6, 4 * len(paints)), layout="constrained")
    for place, paint in enumerate(paints):
        paint(figure.add_subplot(len(paints), 1, place + 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(file, buffer.getvalue())


def _ending(name: str) -> str:
    """The end of a workdir's path, by which a person knows it."""
    return "/".join(Path(name).parts[-2:])
