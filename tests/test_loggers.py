"""metrics.jsonl: whole lines in order, also after a kill and a resume."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from jaxtune.run.trackers import JsonLines, event_of, finite


def rows(path):
    """Without their events, and without the clock."""
    known = ("event", "split", "time")
    lines = map(json.loads, path.read_text().splitlines())
    return [{key: row[key] for key in row if key not in known} for row in lines]


def started(path, step):
    log = JsonLines(path)
    log.start({}, step)
    return log


def test_lines_are_there_at_once(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    log = started(path, 0)
    log.log(1, {"train/loss": 0.5, "epoch": 1})
    assert rows(path) == [{"step": 1, "train/loss": 0.5, "epoch": 1}]
    log.log(2, {"train/loss": 0.25})
    assert [row["step"] for row in rows(path)] == [1, 2]
    log.finish()


def test_nan_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = started(path, 0)
    log.log(1, {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 0.0, "e": None})
    log.finish()
    assert rows(path) == [{"step": 1, "a": None, "b": None, "c": None, "d": 0.0, "e": None}]


@pytest.mark.parametrize(("value", "expected"), [(1.5, 1.5), (float("nan"), None), ("x", "x")])
def test_finite(value, expected):
    assert finite(value) == expected


@pytest.mark.parametrize(("step", "kept"), [(0, []), (2, [1, 2, 2]), (3, [1, 2, 2, 3])])
def test_resume_drops_what_comes_after(tmp_path, step, kept):
    path = tmp_path / "metrics.jsonl"
    log = started(path, 0)
    for n, name in ((1, "a"), (2, "a"), (2, "b"), (3, "a")):
        log.log(n, {name: 1.0})
    log.finish()
    before = path.read_text().splitlines()
    log = started(path, step)
    lines = path.read_text().splitlines()
    assert lines[: len(kept)] == before[: len(kept)]
    gone_on = [step] if step else []  # at 0 it begins anew
    assert [json.loads(line)["event"] for line in lines[len(kept) :]] == ["resume"] * len(gone_on)
    log.log(9, {"a": 2.0})
    log.finish()
    assert [row["step"] for row in rows(path)] == [*kept, *gone_on, 9]


def test_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    log = started(path, 5)
    log.log(6, {"a": 3.0})
    log.finish()
    assert rows(path) == [{"step": 1, "a": 2.0}, {"step": 5}, {"step": 6, "a": 3.0}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/loss", {"event": "train"}),
        ("end/test/accuracy", {"event": "end"}),
        ("validation/loss", {"event": "evaluation", "split": "validation"}),
    ],
)
def test_the_event_follows_from_the_names(name, expected):
    assert event_of({"epoch": 1.0, name: 0.5}) == expected


def test_a_line_has_event_split_and_the_time_in_utc(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = started(path, 4)
    log.log(6, {"validation/loss": 0.5})
    log.finish()
    first, second = map(json.loads, path.read_text().splitlines())
    times = [datetime.fromisoformat(row.pop("time")) for row in (first, second)]
    assert first == {"step": 4, "event": "resume"}
    assert second == {"step": 6, "event": "evaluation", "split": "validation"} | {
        "validation/loss": 0.5
    }
    for time in times:
        assert time.utcoffset() == timedelta()
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=5)


def test_the_end_of_a_shorter_run_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = started(path, 0)
    log.log(4, {"train/loss": 1.0})
    log.log(4, {"end/validation/loss": 1.0})
    log.finish()
    started(path, 4).finish()
    assert rows(path) == [{"step": 4, "train/loss": 1.0}, {"step": 4}]
