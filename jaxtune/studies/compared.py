"""Several runs as a table, as files for other tools, and as a plot."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.core.units import human_bytes, human_seconds
from jaxtune.io.atomic import write_atomic
from jaxtune.run import predictions_folder
from jaxtune.run.console import Report
from jaxtune.run.predictions_folder import Kept
from jaxtune.studies.groups import NUMBERS, Group, Spread, group
from jaxtune.studies.paired import Difference, difference
from jaxtune.studies.row_sums import row_sums, same_rows
from jaxtune.studies.workdirs import Seen, read_runs

FORMATS = (".json", ".csv")


class Versus(NamedTuple):
    """A group beside the first one.

    Attributes:
      runs: the workdirs of the two runs that are compared: the first of each group.
      split: whose rows they are compared on.
      found: None where they cannot be.
      reason: why not.
    """

    runs: tuple[Path, Path]
    split: str
    found: Difference | None
    reason: str = ""


class Comparison(NamedTuple):
    """Several runs.

    Attributes:
      task: of all of them.
      metric: chooses the best step of the first.
      groups: of those that are finished.
      unfinished: the others.
      versus: each group but the first beside that one.
    """

    task: str
    metric: str
    groups: Sequence[Group]
    unfinished: Sequence[Seen]
    versus: Sequence[Versus]


def compare(workdirs: Sequence[Path]) -> Comparison:
    """Reads runs, groups them, and compares the groups.

    Raises:
      UserError: runs of different tasks or data, or none that is finished.
    """
    seen = read_runs(workdirs)
    groups = group(seen)
    unfinished = [run for run in seen if run.results is None]
    if not groups:
        first = unfinished[0]
        raise UserError(
            f"none of the {len(seen)} runs is finished; {first.workdir}: {first.reason}."
        )
    results: Any = groups[0].runs[0].results
    metric = results["best_metric"]
    versus = [_versus(groups[0], other, metric) for other in groups[1:]]
    return Comparison(seen[0].config["task"], metric, groups, unfinished, versus)


def show(found: Comparison, report: Report) -> None:
    """Writes the table, what is not finished, and the differences, for a person."""
    settings = list(found.groups[0].settings)
    columns = _columns(found)
    header = ["run", *settings, "seeds", *(f"{split} {name}" for split, name in columns)]
    header += ["steps", "time", "trainable", "memory"]
    report.grid("runs", header, [_row(part, settings, columns) for part in found.groups])
    for run in found.unfinished:
        report.line(f"not finished: {run.workdir}: {run.reason}")
    for one in found.versus:
        report.line(_told(one, found.metric))


def write(found: Comparison, file: Path) -> None:
    """Writes all scores and settings to a file with one of FORMATS.

    Raises:
      UserError: it cannot be written.
    """
    if file.suffix == ".json":
        write_atomic(file, json.dumps(_as_dict(found), indent=2) + "\n")
        return
    rows = [_record(part) for part in found.groups]
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(file, stream.getvalue())


def _versus(first: Group, other: Group, metric: str) -> Versus:
    """The first runs of two groups on the rows that both have kept."""
    runs = first.runs[0].workdir, other.runs[0].workdir
    kept: list[Kept] = []
    for workdir in runs:
        found = predictions_folder.read(workdir)
        if found is None:
            return Versus(runs, "", None, f"{workdir} has kept no predictions")
        kept.append(found)
    one, two = kept
    if not same_rows(one, two):
        return Versus(runs, one.split, None, "their predictions are of different rows")
    sums = row_sums(one, metric), row_sums(two, metric)
    if sums[0] is None or sums[1] is None:
        return Versus(runs, one.split, None, f"what was kept says nothing of {metric} row by row")
    return Versus(runs, one.split, difference(sums[0], sums[1]))


def _columns(found: Comparison) -> list[tuple[str, str]]:
    """The scores that a person is shown: the one that counts, and the loss."""
    names = dict.fromkeys((found.metric, "loss"))
    splits = dict.fromkeys(split for part in found.groups for split in part.scores)
    return [(split, name) for split in splits for name in names]


def _row(part: Group, settings: Sequence[str], columns: Sequence[tuple[str, str]]) -> list[str]:
    scores = [_spelled(part.scores.get(split, {}).get(name)) for split, name in columns]
    steps, seconds, count, memory = (part.numbers[name] for name in NUMBERS)
    return [
        part.name,
        *(_value(part.settings[name]) for name in settings),
        str(len(part.runs)),
        *scores,
        "-" if steps is None else f"{steps:,.0f}",
        "-" if seconds is None else human_seconds(seconds),
        "-" if count is None else f"{count:,.0f}",
        "-" if memory is None else human_bytes(memory),
    ]


def _spelled(spread: Spread | None) -> str:
    if spread is None or spread.mean is None:
        return "-"
    more = "" if spread.deviation is None else f" ± {spread.deviation:.4f}"
    return f"{spread.mean:.4f}{more}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _told(one: Versus, metric: str) -> str:
    """A difference in words."""
    first, second = one.runs
    pair = f"{second} minus {first}"
    if one.found is None:
        return f"{pair}: not tested, as {one.reason}"
    d = one.found
    return (
        f"{pair}, {one.split} {metric}: {d.value:+.4f} (95% interval {d.low:+.4f} to {d.high:+.4f},"
        f" p = {d.p_value:.4f}, {d.rows:,} rows)"
    )


def _as_dict(found: Comparison) -> dict[str, Any]:
    return {
        "task": found.task,
        "metric": found.metric,
        "groups": [
            {
                "runs": [str(run.workdir) for run in part.runs],
                "seeds": [run.seed for run in part.runs],
                "settings": part.settings,
                "scores": {
                    split: {name: spread._asdict() for name, spread in scores.items()}
                    for split, scores in part.scores.items()
                },
                **part.numbers,
            }
            for part in found.groups
        ],
        "unfinished": [{"run": str(run.workdir), "reason": run.reason} for run in found.unfinished],
        "differences": [_difference(one) for one in found.versus],
    }


def _difference(one: Versus) -> dict[str, Any]:
    told = {"runs": [str(run) for run in one.runs], "split": one.split}
    if one.found is None:
        return told | {"reason": one.reason}
    d = one.found
    return told | {
        "scores": list(d.scores),
        "difference": d.value,
        "interval": [d.low, d.high],
        "p_value": d.p_value,
        "rows": d.rows,
    }


def _record(part: Group) -> dict[str, Any]:
    """A group as one flat row."""
    row: dict[str, Any] = {"run": part.name}
    row |= {name: _value(value) for name, value in part.settings.items()}
    row["seeds"] = len(part.runs)
    for split, scores in part.scores.items():
        for name, spread in scores.items():
            row[f"{split}/{name}"] = spread.mean
            row[f"{split}/{name}/deviation"] = spread.deviation
    return row | dict(part.numbers)
