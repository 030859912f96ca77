"""The file of all that was measured of strategies, and the tables that are made of it."""

import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strategies_rows import ROWS, TASKS

from jaxtune.core.errors import UserError
from jaxtune.io.atomic import write_atomic
from jaxtune.io.lock import held

Record = dict[str, Any]
"""`kind` is `rate` (of a task and a strategy), `score` (of a seed of these) or `costs`."""

_KEY = ("kind", "task", "strategy", "seed")
_PATIENCE = 30  # seconds for another process to write its record


class Results:
    """A JSON file with a list of records, to which several processes may add."""

    def __init__(self, file: Path) -> None:
        """The file need not be there yet."""
        self.file = file

    def records(self) -> list[Record]:
        """All, in the order of the file."""
        return json.loads(self.file.read_text()) if self.file.exists() else []

    def find(self, kind: str, task: str | None = None, **more: Any) -> list[Record]:
        """Those of a kind and a task with fields of such values."""
        wanted = {"kind": kind, **({"task": task} if task else {}), **more}
        return [
            record
            for record in self.records()
            if all(record.get(name) == value for name, value in wanted.items())
        ]

    def add(self, record: Record) -> None:
        """Adds a record, in the place of an older one of the same run."""
        with self._alone():
            kept = [old for old in self.records() if key(old) != key(record)]
            records = sorted([*kept, record], key=_order)
            lines = ",\n".join(json.dumps(one) for one in records)
            write_atomic(self.file, f"[\n{lines}\n]\n")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits as long as another process writes."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lock, until = self.file.with_name(f".{self.file.name}.lock"), time.monotonic() + _PATIENCE
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(held(lock, str(self.file)))
                    break
                except UserError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
            yield


def key(record: Record) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in _KEY)


def _order(record: Record) -> tuple[Any, ...]:
    """As the runs are made: by task, strategy, rate before scores, seed; costs last."""
    names = [*TASKS], [*ROWS]
    places = [
        known.index(record[name]) if record.get(name) in known else len(known)
        for name, known in zip(("task", "strategy"), names, strict=True)
    ]
    return (*places, record["kind"], record.get("seed", -1))


def score_cell(results: Results, task: str, strategy: str) -> str:
    """`mean ± standard deviation (expected calibration error)` of the seeds."""
    found = results.find("score", task, strategy=strategy)
    if not found:
        rates = results.find("rate", task, strategy=strategy)
        return "no rate found" if rates and rates[0]["rate"] is None else ""
    values = [record["score"] for record in found]
    cell = f"{statistics.mean(values):.4f}"
    if len(values) > 1:
        cell += f" ± {statistics.stdev(values):.4f}"
    errors = [record["ece"] for record in found if record["ece"] is not None]
    return cell + (f" ({statistics.mean(errors):.3f})" if errors else "")


def print_tables(results: Results) -> None:
    """Markdown: scores and costs, then the rates."""
    costs = {record["strategy"]: record for record in results.find("costs")}
    heads = [f"{task.title} (ECE)" if name == "classification" else task.title
             for name, task in TASKS.items()]  # fmt: skip
    heads += ["trainable", "FLOPs", "memory", "step"] if costs else []
    _line("strategy", *heads)
    _line(*["---"] * (len(heads) + 1))
    for strategy in ROWS:
        cells = [score_cell(results, task, strategy) for task in TASKS]
        if costs:
            cells += _cost_cells(costs[strategy]) if strategy in costs else [""] * 4
        _line(strategy, *cells)
    print("\nRates by the finder, and parameters that are trained:\n")
    _line("strategy", *TASKS)
    _line(*["---"] * (len(TASKS) + 1))
    for strategy in ROWS:
        _line(strategy, *(_rate_cell(results, task, strategy) for task in TASKS))


def _line(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def _cost_cells(row: Record) -> list[str]:
    return [
        _counts(row["trainable"]),
        _share(row["flops"], row["full_flops"]),
        "unknown" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f} MB",
        f"{1e3 * row['step_seconds']:.0f} ms ({row['time_ratio']:.0%})",
    ]


def _rate_cell(results: Results, task: str, strategy: str) -> str:
    found = results.find("rate", task, strategy=strategy)
    if not found:
        return ""
    rate = "none" if found[0]["rate"] is None else f"{found[0]['rate']:g}"
    return f"{rate}; {_counts(found[0]['trainable'])}"


def _counts(counts: list[int]) -> str:
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def _share(value: float | None, whole: float | None) -> str:
    return "unknown" if value is None or not whole else f"{value / whole:.0%}"
