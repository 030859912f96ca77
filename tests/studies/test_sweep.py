"""Sweeps on a tiny model: trials, going on, ending early, and what trials share."""

import json

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.frozen.loader import Loader
from jaxtune.run.console import Report
from jaxtune.run.signals import TIME_IS_UP, InterruptedRunError
from jaxtune.run.train import train
from jaxtune.studies import ledger, shared, sweep
from jaxtune.studies.space import read_space
from jaxtune.studies.sweep import Plan

RATE = "optimizer.learning_rate"
SPECS = {RATE: "1e-3..1e-1", "optimizer.schedule": "linear|constant"}


@pytest.fixture
def report():
    return Report(quiet=True)


def plan_of(settings, trials, seeds=0):
    return Plan(settings, read_space(SPECS, settings), trials, seeds)


def scores_of(results):
    return [(row["words"], row["state"], row["score"]) for row in results["trials"]]


def test_a_sweep_its_best_and_going_on(head_settings, tmp_path, report, monkeypatch):
    settings, folder = head_settings(), tmp_path / "sweep"
    whole = sweep.sweep(plan_of(settings, 2, seeds=2), folder, report)
    rows = whole["trials"]
    assert [row["state"] for row in rows] == ["complete"] * 2
    assert rows[0]["settings"] == {RATE: 1e-2, "optimizer.schedule": "linear"}  # the config's own
    assert len({row["settings"][RATE] for row in rows}) == 2
    assert all(1e-3 <= row["settings"][RATE] <= 1e-1 for row in rows)
    best = whole["best"]
    assert best["score"] == max(row["score"] for row in rows)
    models = [path.parent.name for path in (folder / "trials").glob("*/model")]
    assert models == [f"{best['number']:03d}"]
    assert not [*(folder / "trials").glob("*/checkpoints")]
    config = json.loads((folder / "best.json").read_text())
    assert config["optimizer"]["learning_rate"] == best["settings"][RATE]
    seeds = whole["seeds"]["validation"]["accuracy"]
    found = [json.loads(f.read_text()) for f in (folder / "seeds").glob("*/results.json")]
    values = [one["scores"]["validation"]["accuracy"] for one in found]
    assert (len(found), seeds["known"]) == (2, 2)
    assert seeds["mean"] == pytest.approx(np.mean(values))
    assert seeds["deviation"] == pytest.approx(np.std(values, ddof=1))

    # Stopped in the midst of the second trial, it ends as it would have.
    trained, other = sweep.Trainer.__call__, tmp_path / "other"

    def stopped(self, settings, workdir, judge):
        if workdir.name == "001":
            judge.report(1, 0.25)
            raise InterruptedRunError(TIME_IS_UP, 2)
        return trained(self, settings, workdir, judge)

    monkeypatch.setattr(sweep.Trainer, "__call__", stopped)
    with pytest.raises(InterruptedRunError):
        sweep.sweep(plan_of(settings, 2), other, report)
    monkeypatch.setattr(sweep.Trainer, "__call__", trained)
    with (other / "study.jsonl").open("ab") as stream:
        stream.write(b'{"op_code":')  # a line that a kill cut off
    again = sweep.sweep(plan_of(settings, 2), other, report)
    assert scores_of(again) == scores_of(whole)

    with pytest.raises(UserError, match=r"another sweep: config\.seed was 0, is 1"):
        sweep.sweep(plan_of(head_settings(seed=1), 2), other, report)
    monkeypatch.setattr(sweep.Trainer, "__call__", None)  # nothing more is trained
    assert scores_of(sweep.sweep(plan_of(settings, 2), other, report)) == scores_of(whole)


def test_a_trial_below_the_median_of_those_before_ends_early(
    head_settings, tmp_path, report, monkeypatch
):
    monkeypatch.setattr(ledger, "_RANDOM", 1)
    settings = head_settings(train__best_metric="loss")
    plan = Plan(settings, read_space({RATE: "1e-2..1e2"}, settings), 2)
    folder = tmp_path / "sweep"
    results = sweep.sweep(plan, folder, report)
    first, other = results["trials"]
    assert [first["state"], other["state"]] == ["complete", "pruned"]
    assert other["steps"] == 2  # of six
    assert other["score"] > first["score"]  # a loss, at a rate that is far too high
    assert sorted(path.name for path in (folder / "trials" / "001").iterdir()) == [
        "config.json",
        "metrics.jsonl",
    ]
    assert results["best"]["number"] == 0


def test_what_trials_share_changes_no_weight_and_is_computed_once(
    head_settings, tmp_path, report, monkeypatch
):
    settings = head_settings()
    alone = train(settings, tmp_path / "alone", report)
    runs = []
    states = Loader._states
    monkeypatch.setattr(
        Loader, "_states", lambda self, fields: runs.append(1) or states(self, fields)
    )
    results = sweep.sweep(plan_of(settings, 2), tmp_path / "sweep", report)
    own = results["trials"][0]
    assert own["score"] == pytest.approx(alone["scores"]["validation"]["accuracy"], abs=1e-6)
    assert len(runs) == 3  # batches of one epoch, of nine rows by four
    file = "metrics.jsonl"
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / place / file).read_text().splitlines()]
        for place in ("sweep/trials/000", "alone")
    )
    losses = [[row["train/loss"] for row in rows if "train/loss" in row] for rows in (ours, theirs)]
    assert losses[0] == losses[1]
    name = "validation/loss"
    held = [[row[name] for row in rows if name in row] for rows in (ours, theirs)]
    assert len(held[0]) == 3
    np.testing.assert_allclose(*held, rtol=1e-5)


def test_states_are_shared_only_where_batches_are_the_same(head_settings):
    from jaxtune.run.prepare import prepare

    def key(**overrides):
        return shared._key(prepare(head_settings(**overrides), Report(quiet=True)), 1)

    same = key()
    assert key(optimizer__learning_rate=1e-3, loss__label_smoothing=0.1) == same
    others = [key(seed=1), key(train__batch_size=3), key(data__max_length=12)]
    assert len({same, *others}) == 4


def test_the_time_of_a_sweep_is_that_of_all_trials(head_settings, tmp_path, report):
    plan = plan_of(head_settings(train__max_seconds=1e-9), 1)
    with pytest.raises(InterruptedRunError, match="max_seconds"):
        sweep.sweep(plan, tmp_path / "sweep", report)
    assert not (tmp_path / "sweep" / "trials").exists()


def test_bad_data_ends_a_sweep_and_binds_its_folder_to_nothing(head_settings, tmp_path, report):
    folder = tmp_path / "sweep"
    with pytest.raises(UserError, match="nowhere"):
        sweep.sweep(plan_of(head_settings(data__path=tmp_path / "nowhere"), 2), folder, report)
    assert len(sweep.sweep(plan_of(head_settings(), 1), folder, report)["trials"]) == 1
