"""metrics.jsonl: whole lines in order, also after a kill and a resume."""

import json

import pytest

from jaxtune.run.trackers import MetricsLog, finite


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_there_at_once(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    log.write(1, {"train/loss": 0.5, "epoch": 1})
    assert rows(path) == [{"step": 1, "train/loss": 0.5, "epoch": 1}]
    log.write(2, {"train/loss": 0.25})
    assert [row["step"] for row in rows(path)] == [1, 2]
    log.close()


def test_nan_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    log.write(1, {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 0.0, "e": None})
    log.close()
    assert rows(path) == [{"step": 1, "a": None, "b": None, "c": None, "d": 0.0, "e": None}]


@pytest.mark.parametrize(("value", "expected"), [(1.5, 1.5), (float("nan"), None), ("x", "x")])
def test_finite(value, expected):
    assert finite(value) == expected


@pytest.mark.parametrize(("step", "kept"), [(0, []), (2, [1, 2, 2]), (3, [1, 2, 2, 3])])
def test_resume_drops_what_comes_after(tmp_path, step, kept):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    for n, name in ((1, "a"), (2, "a"), (2, "b"), (3, "a")):
        log.write(n, {name: 1.0})
    log.close()
    before = path.read_text().splitlines()
    log = MetricsLog(path, resume_step=step)
    assert path.read_text().splitlines() == before[: len(kept)]
    log.write(9, {"a": 2.0})
    log.close()
    assert [row["step"] for row in rows(path)] == [*kept, 9]


def test_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    log = MetricsLog(path, resume_step=5)
    log.write(3, {"a": 3.0})
    log.close()
    assert rows(path) == [{"step": 1, "a": 2.0}, {"step": 3, "a": 3.0}]
