"""What benchmarks/strategies.py makes of its file: records, the table, the efficient points."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FULL, HEAD, LORA = "full", "head", "lora"


def rate(strategy, flops, found=0.001):
    own = {"rate": found, "flops": flops, "full_flops": 100.0, "trainable": [1200, 7]}
    return {"kind": "rate", "task": "pairs", "strategy": strategy, "recipe": "a"} | own


def score(strategy, seed, value, ece=None):
    own = {"seed": seed, "score": value, "ece": ece, "recipe": "a"}
    return {"kind": "score", "task": "pairs", "strategy": strategy} | own


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("strategies_results").Results(tmp_path / "results.json")
    for record in (
        *(score(FULL, 1, 0.9), rate(FULL, 100.0), score(FULL, 0, 0.7), rate(HEAD, 30.0)),
        *(score(HEAD, 0, 0.6, 0.25), rate(LORA, 60.0), score(LORA, 0, 0.5), score(FULL, 0, 0.8)),
    ):
        found.add(record)
    return found


def test_a_run_has_one_record_and_the_file_an_order(results):
    kinds = [(one["strategy"], one["kind"], one.get("seed")) for one in results.records()]
    assert kinds == [
        *((FULL, "rate", None), (FULL, "score", 0), (FULL, "score", 1)),
        *((LORA, "rate", None), (LORA, "score", 0), (HEAD, "rate", None), (HEAD, "score", 0)),
    ]
    assert [one["score"] for one in results.find("score", "pairs", strategy=FULL)] == [0.8, 0.9]


def test_the_table_needs_the_file_alone(results, capsys):
    importlib.import_module("strategies_results").print_tables(results)
    lines = capsys.readouterr().out.splitlines()
    assert "| full |  | 0.8500 ± 0.0707 |  |  |" in lines
    assert "| head |  | 0.6000 (0.250) |  |  |" in lines
    assert "| head |  | 0.001; 7 to 1,200 |  |  |" in lines


def test_an_efficient_point_is_beaten_by_none(results):
    module = importlib.import_module("strategies_plot")
    found = module.points(results, "pairs")
    shares = {name: share for name, share, *_ in found}
    assert shares == {FULL: 1.0, LORA: 0.6, HEAD: 0.3}
    assert [point.name for point in module.efficient(found)] == [HEAD, FULL]


def test_records_of_another_recipe_stop_a_run(results, tmp_path):
    runs = importlib.import_module("strategies_runs")
    cell = runs.Cell("pairs", FULL, {"x": "1"}, {}, tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="by other settings"):
        runs.missing(cell, [0], results)


def test_every_strategy_has_settings_for_every_task(results):
    rows = importlib.import_module("strategies_rows")
    for task in rows.TASKS:
        digests = {rows.digest(rows.settings_of(task, name, {})) for name in rows.ROWS}
        assert len(digests) == len(rows.ROWS)
