"""metrics.jsonl: whole lines in order, also after a kill and a resume."""

import json

import pytest

from jaxtune.run.trackers import JsonLines, finite


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


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
    assert path.read_text().splitlines() == before[: len(kept)]
    log.log(9, {"a": 2.0})
    log.finish()
    assert [row["step"] for row in rows(path)] == [*kept, 9]


def test_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    log = started(path, 5)
    log.log(3, {"a": 3.0})
    log.finish()
    assert rows(path) == [{"step": 1, "a": 2.0}, {"step": 3, "a": 3.0}]
