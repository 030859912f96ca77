"""Sweeps on a tiny model: trials, going on, ending early, and what trials share."""

import dataclasses
import json

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.frozen import held_out
from jaxtune.frozen.loader import Loader
from jaxtune.run.console import Report
from jaxtune.run.signals import TIME_IS_UP, InterruptedRunError
from jaxtune.run.train import train
from jaxtune.studies import ledger, shared, sweep
from jaxtune.studies.space import read_space, with_values
from jaxtune.studies.sweep import Plan

RATE = "optimizer.learning_rate"
SPECS = {RATE: "1e-3..1e-1", "optimizer.schedule": "linear|constant"}


@pytest.fixture
def report():
    return Report(quiet=True)


def plan_of(settings, trials, seeds=0):
    return Plan(settings, read_space(SPECS, settings), trials, seeds)


def scores_logged(workdir, name):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


@pytest.fixture
def computed(monkeypatch):
    """The batches of training and of evaluation that frozen layers were computed for."""
    found = {"training": 0, "evaluation": 0}
    states = Loader._states

    def counted(self, fields):
        found["training"] += 1
        return states(self, fields)

    class Counted(held_out.Compiled):
        def __call__(self, *args):
            found["evaluation"] += 1
            return super().__call__(*args)

    monkeypatch.setattr(Loader, "_states", counted)
    monkeypatch.setattr(held_out, "Compiled", Counted)
    return found


def test_a_sweep_has_a_best_trial_and_computes_frozen_layers_once(
    head_settings, tmp_path, report, computed
):
    folder = tmp_path / "sweep"
    with pytest.raises(UserError, match="nowhere"):  # binds the folder to nothing
        sweep.sweep(plan_of(head_settings(data__path=tmp_path / "nowhere"), 2), folder, report)
    results = sweep.sweep(plan_of(head_settings(), 2), folder, report)
    assert computed == {"training": 3, "evaluation": 2}  # of 9 and 5 rows, four a batch
    rows, best = results["trials"], results["best"]
    assert [row["state"] for row in rows] == ["complete"] * 2
    assert rows[0]["settings"] == {RATE: 1e-2, "optimizer.schedule": "linear"}  # the config's own
    assert 1e-3 <= rows[1]["settings"][RATE] <= 1e-1
    assert rows[1]["settings"][RATE] != 1e-2
    assert best["score"] == max(row["score"] for row in rows)
    models = [path.parent.name for path in (folder / "trials").glob("*/model")]
    assert models == [f"{best['number']:03d}"]
    assert not [*(folder / "trials").glob("*/checkpoints")]
    config = json.loads((folder / "best.json").read_text())
    assert config["optimizer"]["learning_rate"] == best["settings"][RATE]

    # A second trial alone: the same bits in training, the same scores up to rounding.
    alone = tmp_path / "alone"
    settings = with_values(head_settings(), rows[1]["words"])
    score = train(settings, alone, report)["scores"]["validation"]["accuracy"]
    assert rows[1]["score"] == pytest.approx(score, abs=1e-6)
    ours = folder / "trials" / "001"
    assert scores_logged(ours, "train/loss") == scores_logged(alone, "train/loss")
    held = [scores_logged(place, "validation/loss") for place in (ours, alone)]
    assert len(held[0]) == 2
    np.testing.assert_allclose(*held, rtol=1e-5)


def test_a_sweep_that_was_stopped_goes_on(head_settings, tmp_path, report, monkeypatch):
    settings, folder = head_settings(), tmp_path / "sweep"
    trained, seen = sweep.Trainer.__call__, []

    def stopped(self, settings, workdir, judge):
        seen.append((workdir.name, settings.optimizer.learning_rate))
        if len(seen) > 1:
            judge.report(1, 0.25)
            raise InterruptedRunError(TIME_IS_UP, 2)
        return trained(self, settings, workdir, judge)

    monkeypatch.setattr(sweep.Trainer, "__call__", stopped)
    with pytest.raises(InterruptedRunError):
        sweep.sweep(plan_of(settings, 2), folder, report)
    monkeypatch.setattr(sweep.Trainer, "__call__", trained)
    with (folder / "study.jsonl").open("ab") as stream:
        stream.write(b'{"op_code":')  # a line that a kill cut off
    with pytest.raises(UserError, match=r"another sweep: config\.seed was 0, is 1"):
        sweep.sweep(plan_of(head_settings(seed=1), 2), folder, report)
    results = sweep.sweep(plan_of(settings, 2, seeds=2), folder, report)
    rates = [(f"{row['number']:03d}", row["settings"][RATE]) for row in results["trials"]]
    assert rates == seen
    assert [row["state"] for row in results["trials"]] == ["complete"] * 2
    scores = results["seeds"]["validation"]["accuracy"]
    found = [json.loads(f.read_text()) for f in (folder / "seeds").glob("*/results.json")]
    values = [one["scores"]["validation"]["accuracy"] for one in found]
    assert (len(found), scores["known"]) == (2, 2)
    assert scores["mean"] == pytest.approx(np.mean(values))
    assert scores["deviation"] == pytest.approx(np.std(values, ddof=1))
    monkeypatch.setattr(sweep.Trainer, "__call__", None)  # nothing more is trained
    monkeypatch.setattr(sweep, "train", None)
    assert sweep.sweep(plan_of(settings, 2, seeds=2), folder, report) == results


def test_what_is_drawn_follows_from_the_trials_before(head_settings, tmp_path):
    settings = head_settings()
    space = read_space(SPECS, settings)

    def drawn(folder, reopened, seed=0):
        folder.mkdir()
        found = []
        chosen = dataclasses.replace(settings, seed=seed)
        book = ledger.Ledger(folder, chosen, space, maximize=True)
        for number in range(8):
            if reopened:
                book = ledger.Ledger(folder, chosen, space, maximize=True)
                if number == 6:  # drawn, and not told
                    book.next()
                    book = ledger.Ledger(folder, chosen, space, maximize=True)
            _, words = book.next()
            found.append(words)
            book.complete(-abs(np.log(float(words[RATE]) / 3e-3)))
        return found

    whole = drawn(tmp_path / "whole", reopened=False)
    assert len({words[RATE] for words in whole}) == 8
    assert drawn(tmp_path / "reopened", reopened=True) == whole
    assert drawn(tmp_path / "other", reopened=False, seed=1)[1:] != whole[1:]


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
    assert other["steps"] == 2  # of four
    assert other["score"] > first["score"]  # a loss, at a rate that is far too high
    assert sorted(path.name for path in (folder / "trials" / "001").iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "tensorboard",
    ]
    assert results["best"]["number"] == 0


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
