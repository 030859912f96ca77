"""Runs in stages: when each begins, and that a run that dies in any of them goes on the same."""

import json

import numpy as np
import pytest
from metrics import steady_rows
from safetensors.numpy import load_file

from jaxtune import main
from jaxtune.run import hooks
from jaxtune.run.trackers import JsonLines

BASE = [
    "--config.tuning.name=gradual",
    "--config.tuning.layers_per_stage=3",  # each stage is one more program to compile
    "--config.train.log_every_steps=1",
    "--config.train.checkpoint_every_steps=3",
    "--config.train.batch_size=8",
]
BY_EPOCH = [*BASE, "--config.tuning.stage_length=0.5"]
CHAIN = [
    *BASE,
    "--config.tuning.order=chain_thaw",
    "--config.tuning.stage_by=step",
    "--config.tuning.stage_length=5",
]
PLATEAU = [
    *BASE,
    "--config.tuning.stage_by=plateau",
    "--config.train.eval_every_steps=3",
    "--config.train.best_metric=loss",
    "--config.train.patience=2",
    "--config.optimizer.learning_rate=0.03",
]


@pytest.fixture
def config(deep_config):
    """With layers to thaw."""
    return deep_config


class Crash(BaseException):
    """Not an Exception, so that nothing tidies up after it."""


def run(config, workdir, *more):
    main.main([f"--config={config}", f"--workdir={workdir}", *more])
    return json.loads((workdir / "results.json").read_text())


def die_at(monkeypatch, step):
    """The run dies before it writes the log of `step`."""
    write = JsonLines.log

    def patched(self, at, values):
        if at == step:
            raise Crash
        return write(self, at, values)

    monkeypatch.setattr(JsonLines, "log", patched)


def weights(workdir):
    return load_file(workdir / "model" / "model.safetensors")


def same(one, other):
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


def test_a_run_too_short_for_its_stages_is_refused(config, tmp_path):
    with pytest.raises(
        main.UserError, match=r"3 stages of 1 epoch begin their last one at step 22"
    ):
        run(config, tmp_path / "run", *BASE, "--config.train.num_epochs=2")
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("choice", "stages"),
    [
        pytest.param(BY_EPOCH, (0, 1), id="epoch"),
        pytest.param(CHAIN, (2,), id="chain"),
        pytest.param(PLATEAU, (1,), id="plateau"),
    ],
)
def test_a_run_that_dies_in_any_stage_goes_on_with_the_same_bits(
    config, tmp_path, monkeypatch, capsys, choice, stages
):
    whole = run(config, tmp_path / "whole", *choice)
    starts = [*whole["stage_starts"], whole["steps"]]
    if choice is BY_EPOCH:
        assert starts == [0, 6, 11, 33]  # of 11 steps an epoch
        assert "stage 3 of 3 from step 11" in capsys.readouterr().out
    if choice is CHAIN:
        assert starts == [0, 5, 10, 15, 33]
    assert len(whole["compiled_train_shapes"]) == len(starts) - 1  # one shape, once a stage
    assert len(whole["compiled_eval_shapes"]) == 1
    assert whole["trainable_parameters"] == whole["parameters"]
    for index in stages:
        # Two steps into the stage: the newest checkpoint may be of the stage before.
        workdir, step = tmp_path / f"died{index}", min(starts[index] + 2, starts[index + 1])
        with monkeypatch.context() as patch:
            die_at(patch, step)
            with pytest.raises(Crash):
                run(config, workdir, *choice)
        again = run(config, workdir, *choice)
        assert (again["resumed_from_step"] or 0) <= step
        assert again["stage_starts"] == whole["stage_starts"]
        assert again["best_step"] == whole["best_step"]
        assert same(tmp_path / "whole", workdir), f"stage {index}"
        assert steady_rows(tmp_path / "whole") == steady_rows(workdir)


@pytest.mark.exhaustive
def test_a_plateau_of_the_score_begins_the_next_stage(config, tmp_path):
    results = run(config, tmp_path / "run", *PLATEAU, "--config.train.num_epochs=12")
    losses = {
        row["step"]: row["validation/loss"]
        for row in steady_rows(tmp_path / "run")
        if "validation/loss" in row
    }
    best, bad, starts, stop = float("inf"), 0, [0], None
    for step, loss in losses.items():
        best, bad = (loss, 0) if loss < best else (best, bad + 1)
        if bad >= 1 and len(starts) < 3:
            starts, bad = [*starts, step], 0
        elif bad >= 2:
            stop = step
            break
    assert results["stage_starts"] == starts
    assert len(starts) == 3
    if stop is not None:
        assert results["steps"] == stop


@pytest.mark.exhaustive
def test_the_best_step_of_an_earlier_stage_is_exported_whole(config, tmp_path, golden, monkeypatch):
    judge = hooks.judge

    def worse(run, progress, step, scores):
        """Takes each evaluation for worse than the one before."""
        found = judge(run, progress, step, scores | {"loss": float(step)})
        return found._replace(best_scores=scores) if found.best_step == step else found

    monkeypatch.setattr(hooks, "judge", worse)
    more = ["--config.train.best_metric=loss", "--config.train.eval_every_steps=8"]
    results = run(config, tmp_path / "run", *CHAIN, *more)
    assert results["best_step"] == 8  # in the second of four stages
    assert results["stage_starts"] == [0, 5, 10, 15]
    losses = [
        row["validation/loss"] for row in steady_rows(tmp_path / "run") if "validation/loss" in row
    ]
    assert results["scores"]["validation"]["loss"] == losses[0]
    before, after = load_file(golden / "odd" / "model.safetensors"), weights(tmp_path / "run")
    same = {name for name, value in before.items() if np.array_equal(value, after[name])}
    name = "bert.encoder.layer.{}.output.dense.weight"  # not yet trained by then
    assert {name.format(i) for i in range(3)} <= same
    # Trained in the first stage and settled since; trained in the second.
    assert not {"bert.pooler.dense.weight", "bert.embeddings.word_embeddings.weight"} & same
