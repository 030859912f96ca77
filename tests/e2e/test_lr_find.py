"""`--mode=lr_find` on the tiny model: its files, and that the workdir stays free for a run."""

import json

import numpy as np
import pytest

from jaxtune import main
from jaxtune.run.cli import run_command

HEAD = "--config.tuning.name=head"


def argv(config, workdir, *more):
    return [f"--config={config}", f"--workdir={workdir}", "--mode=lr_find", *more]


def sweep(config, workdir, *more):
    main.main(argv(config, workdir, *more))
    return json.loads((workdir / "lr_find.json").read_text())


def test_it_writes_its_two_files_and_leaves_the_workdir_to_a_run(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    large = "--config.train.batch_size=32"  # or the loss falls by less than batches differ
    found = sweep(config, workdir, "--config.train.num_steps=100", large)
    assert {path.name for path in workdir.iterdir()} == {"lr_find.json", "lr_find.png"}
    assert (workdir / "lr_find.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    count = len(found["rates"])
    assert len(found["losses"]) == len(found["smoothed"]) == count <= 100
    np.testing.assert_allclose(found["rates"], np.geomspace(1e-7, 1, 100)[:count])
    assert found["losses"][0] == pytest.approx(np.log(3), abs=1.0)  # three classes, new head
    assert found["minimum"] is not None
    assert found["minimum_divided_by_10"] == found["minimum"] / 10
    assert found["settings"]["train"]["num_steps"] == 100
    assert len(found["settings"]["model"]["sha256"]) == 64
    shown = capsys.readouterr().out
    assert "100 steps of 32 examples" in shown
    assert f"--config.optimizer.learning_rate={found['suggestion']:.1e}" in shown
    assert "lr_find.png" in shown
    assert "lr_find.json" in shown
    # The folder is not a run's yet, so that another config may train into it.
    main.main([f"--config={config}", f"--workdir={workdir}", "--config.train.num_epochs=1"])
    results = json.loads((workdir / "results.json").read_text())
    assert results["resumed_from_step"] is None
    assert results["steps"] == 11
    assert (workdir / "lr_find.json").exists()


@pytest.mark.exhaustive
def test_the_same_seed_gives_the_same_losses(config, tmp_path):
    found = [
        sweep(config, tmp_path / name, f"--config.seed={seed}", HEAD, *more)
        for name, seed, more in (
            ("a", 5, []),
            ("b", 5, ["--config.optimizer.learning_rate=1", "--config.optimizer.schedule=cosine"]),
            ("c", 6, []),
        )
    ]
    assert found[0]["losses"] == found[1]["losses"]  # the run's own rate and schedule play no part
    assert found[0]["losses"] != found[2]["losses"]
    assert len(found[0]["rates"]) <= 33  # as many as the run has steps
    assert (tmp_path / "a/lr_find.png").stat().st_size > 5_000


@pytest.mark.exhaustive
def test_the_losses_are_those_of_steps_at_rising_rates(config, tmp_path):
    """The first losses agree with a run at a rate of nearly nothing, and the later ones do not."""
    found = sweep(config, tmp_path / "sweep", "--config.train.num_steps=100")
    log = tmp_path / "run" / "metrics.jsonl"
    tiny = ["learning_rate=1e-7", "schedule=constant", "warmup_fraction=0"]
    more = [f"--config.optimizer.{part}" for part in tiny]
    more += ["--config.train.log_every_steps=1", "--config.train.num_epochs=5"]
    main.main([f"--config={config}", f"--workdir={tmp_path / 'run'}", *more])
    rows = map(json.loads, log.read_text().splitlines())
    still = [row["train/loss"] for row in rows if "train/loss" in row]
    np.testing.assert_allclose(found["losses"][:20], still[:20], atol=3e-3)  # of two epochs
    assert np.abs(np.subtract(found["losses"][:55], still))[-5:].max() > 0.02


def test_sgd_goes_up_to_ten_and_divergence_ends_the_sweep(config, tmp_path, capsys):
    sgd = ["--config.optimizer.name=sgd", "--config.optimizer.clip_norm=None", HEAD]
    found = sweep(config, tmp_path / "run", *sgd, "--config.train.num_steps=60")
    assert "to 10 in 60 steps" in capsys.readouterr().out
    count = len(found["rates"])
    np.testing.assert_allclose(found["rates"], np.geomspace(1e-7, 10, 60)[:count])
    assert count < 60
    lowest = min(value for value in found["smoothed"] if value is not None)
    last = found["smoothed"][-1]
    assert last is None or last > 4 * lowest
    assert all(value is not None for value in found["losses"][:-1])


@pytest.mark.exhaustive
def test_it_sweeps_the_chosen_strategy(deep_config, tmp_path, capsys):
    choices = (["name=lora"], ["name=gradual", "stage_length=0.2", "frozen_dropout=true"])
    found = [
        sweep(deep_config, tmp_path / str(index), *[f"--config.tuning.{part}" for part in choice])
        for index, choice in enumerate(choices)
    ]
    first = [sweeps["losses"][0] for sweeps in found]
    np.testing.assert_allclose(first, first[0], rtol=1e-5)  # the same model, batch and dropout
    assert found[0]["losses"][-1] != found[1]["losses"][-1]
    shown = capsys.readouterr().out
    assert "tuning lora\n" in shown
    assert "tuning gradual (stage 1 of 5)\n" in shown


def test_too_few_steps(config, tmp_path, capsys):
    assert run_command(main.main, argv(config, tmp_path / "run", "--config.train.num_steps=5")) == 2
    err = capsys.readouterr().err
    assert "--mode=lr_find would have 5 steps: expected at least 20" in err
    assert "--config.train.num_steps=100" in err


def test_a_file_in_the_place_of_the_workdir(config, tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert run_command(main.main, argv(config, tmp_path / "run")) == 2
    assert "Use another --workdir" in capsys.readouterr().err


def test_a_loss_that_never_falls_and_no_matplotlib(config, tmp_path, capsys, monkeypatch):
    """The head alone is trained, by steps of a norm that changes nothing."""
    monkeypatch.setattr("jaxtune.run.lr_find.is_installed", lambda package: False)
    more = ["--config.optimizer.name=sgd", "--config.optimizer.clip_norm=1e-9", HEAD]
    found = sweep(config, tmp_path / "run", *more, "--config.train.num_steps=40")
    assert found["suggestion"] is None
    assert found["minimum"] is None
    assert "never fell" in found["reason"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "none: the loss never fell" in shown
    assert 'plot none, as matplotlib is absent: pip install "jaxtune[report]"' in shown
    assert not (tmp_path / "run" / "lr_find.png").exists()
