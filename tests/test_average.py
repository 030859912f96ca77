"""The moving average of trained parameters, against its sum in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cover import mark_rest
from safetensors.numpy import load_file
from test_stages import LENGTH, make_run

from jaxtune.core import paths
from jaxtune.core.types import Mean
from jaxtune.models.convert import to_file, torch_name
from jaxtune.run import front, hooks, stages
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, every
from jaxtune.run.train import train
from jaxtune.settings import OptimizerSettings, Settings
from jaxtune.training.average import averaging, begin_average
from jaxtune.training.state import init_state
from jaxtune.training.step import StepInfo, skip_nonfinite
from jaxtune.tuning.partition import FROZEN

BATCH = {"input_ids": np.zeros((1, 1), np.int32)}


def mean(values, decay):
    """`sum_k d^(t-k) p_k / sum_k d^(t-k)` of what a leaf was after each step k."""
    weights = np.array([decay ** (len(values) - 1 - k) for k in range(len(values))])
    return np.tensordot(weights, np.stack(values), 1) / weights.sum()


def in_float64(params):
    return {name: np.asarray(leaf, np.float64) for name, leaf in paths.flatten(params).items()}


@pytest.mark.parametrize(("order", "decay"), [("ulmfit", 0.99999), ("chain_thaw", 0.7)])
def test_the_average_goes_on_from_stage_to_stage(order, decay):
    """What is thawed had its value in all steps before; what is frozen again is as it is."""
    run = make_run(order)
    run = run._replace(settings=Settings(optimizer=OptimizerSettings(ema_decay=decay)))
    history, since, last = [in_float64(run.params)], {}, None
    params = run.params
    for index, labels in enumerate(run.tuning.stage_labels):
        trained = {name for name, label in paths.flatten(labels).items() if label != FROZEN}
        since = {name: since.get(name, len(history) - 1) for name in trained}
        stage = stages.begin(run, index, params, last)
        for _ in range(LENGTH):
            state, _ = stage.step(stage.state, stage.frozen, BATCH)
            stage = stage._replace(state=state)
            history.append(in_float64(stages.assemble(stage)))
        for name, found in in_float64(stages.to_score(run, stage)).items():
            values = [history[max(k, since.get(name, k))][name] for k in range(len(history))]
            expected = mean(values[1:], decay) if name in trained else history[-1][name]
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-7, err_msg=name)
        params, last = jax.tree.map(jnp.array, stages.assemble(stage)), stage.state


def test_a_step_that_is_left_out_counts_with_the_parameters_that_it_leaves():

    def step(state, frozen, batch):
        info = StepInfo(Mean(jnp.float32(batch), jnp.float32(1.0)), jnp.float32(1.0))
        return state._replace(step=state.step + 1, params={"w": state.params["w"] + 1}), info

    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = begin_average(init_state(params, optax.identity(), jax.random.key(0)))
    assert state.average["w"].dtype == jnp.float32
    taken, history = averaging(skip_nonfinite(step), 0.5), []
    for loss in (1.0, np.nan, 1.0, 1.0):
        state, _ = taken(state, None, loss)
        history.append(np.asarray(state.params["w"], np.float64))
    assert [values[0] for values in history] == [2, 2, 3, 4]
    np.testing.assert_allclose(state.average["w"], mean(history, 0.5), rtol=1e-6)


class CrashError(Exception):
    pass


def crash(moment):
    if moment.step == 4:
        raise CrashError


@pytest.mark.parametrize(
    ("strategy", "early"),
    mark_rest(
        [(name, early) for name in ("head", "full", "lora") for early in (True, False)],
        [("head", True)],
    ),
)
def test_a_run_is_scored_and_exported_by_the_average_of_its_best_step(
    strategy, early, tiny_weights, tiny_settings, tiny_tasks, tmp_path, monkeypatch
):
    """And ends with the same bits where it was interrupted."""
    judge, decay = hooks.judge, 0.8
    model = tiny_weights("classification", "bert", 1)
    settings = tiny_settings(
        "classification",
        strategy,
        model,
        **{
            "optimizer.ema_decay": decay,
            "optimizer.learning_rate": 0.01,
            "train.eval_every_steps": 3,
            "train.best_metric": "loss",
        },
    )

    def aimed(run, progress, step, scores):
        """The first evaluation is the best, or the last."""
        found = judge(run, progress, step, scores | {"loss": float(step if early else -step)})
        return found._replace(best_scores=scores) if found.best_step == step else found

    monkeypatch.setattr(hooks, "judge", aimed)
    history = []
    seen = Hook(lambda moment: history.append(in_float64(moment.params)), every(1))
    results = train(settings, tmp_path / "whole", Report(quiet=True), hooks=[seen])
    best = 3 if early else 6
    assert (results["best_step"], results["ema_decay"]) == (best, decay)
    weights = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    if strategy != "lora":  # which is merged
        for name in history[0]:
            expected = to_file(name, mean([step[name] for step in history[:best]], decay))
            np.testing.assert_allclose(weights[torch_name(name)], expected, atol=1e-6, err_msg=name)
            if name == "classifier/bias":
                assert not np.allclose(expected, history[best - 1][name], atol=1e-4)
    found = front.evaluate(tmp_path / "whole" / "model", tiny_tasks["classification"].folder)
    assert found == pytest.approx(results["scores"]["validation"], abs=1e-5)
    with pytest.raises(CrashError):
        train(settings, tmp_path / "again", Report(quiet=True), hooks=[Hook(crash, every(1))])
    again = train(settings, tmp_path / "again", Report(quiet=True))
    assert again["resumed_from_step"] == 3
    assert again["scores"] == results["scores"]
    other = load_file(tmp_path / "again" / "model" / "model.safetensors")
    for name, leaf in weights.items():
        np.testing.assert_array_equal(other[name], leaf, err_msg=name)
