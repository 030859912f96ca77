"""What two runs may differ in: clocks, and where one of them went on."""

import json
from datetime import datetime
from pathlib import Path


def rows_of(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl, each of which has an event and a time that does not go back."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    times = [datetime.fromisoformat(row["time"]) for row in rows]
    assert all(time.utcoffset().total_seconds() == 0 for time in times)
    assert times == sorted(times)
    assert {row["event"] for row in rows} <= {"train", "evaluation", "resume", "end"}
    return rows


def steady_rows(workdir: Path) -> list[dict]:
    """The rows of the steps, without what a clock measured: alike in a run that went on."""
    return [
        {name: value for name, value in row.items() if name != "time" and "_per_second" not in name}
        for row in rows_of(workdir)
        if row["event"] != "resume"
    ]


def resumed_at(workdir: Path) -> list[int]:
    """The steps from which a run went on."""
    return [row["step"] for row in rows_of(workdir) if row["event"] == "resume"]
