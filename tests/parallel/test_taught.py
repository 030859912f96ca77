"""A student learns from its teacher on several devices as on one."""

import itertools

import jax
import numpy as np
import pytest
from cover import mark_rest

from jaxtune.core import paths
from jaxtune.run import stages
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare

STEPS, DEVICES = 3, 4
PLACED = {
    "fsdp, data": {"parallel.fsdp": 2},
    "tensor, data": {"parallel.tensor": 2},
    "pmap": {"parallel.mode": "pmap"},
}


@pytest.fixture(scope="module")
def taught(tiny_weights, write_settings, tmp_path_factory):
    """A config file, overrides, and the settings: a teacher's outputs and hidden states, packed."""
    folder = tmp_path_factory.mktemp("taught")
    teacher, student = (tiny_weights("classification", "bert", n) for n in (2, 1))
    fields = {"distillation.teacher": teacher, "distillation.hidden_weight": 3}
    fields |= {"distillation.layer_map": "1=2", "data.layout": "packed", "distillation.alpha": 0.7}
    fields |= {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1}
    settings = write_settings("classification", "full", student, folder, fields)
    return str(folder / "config.json"), fields, settings


@pytest.mark.parametrize("place", mark_rest(PLACED, ("fsdp, data",)))
def test_losses_and_parameters_are_those_of_one_device(place, taught, run_on):
    config, fields, settings = taught
    overrides = {key: str(value) for key, value in (fields | PLACED[place]).items()}
    job = {"name": "taught", "config": config, "overrides": overrides, "steps": STEPS}
    outcome = run_on([job], DEVICES)["taught"]
    stage = stages.begin(run := prepare(settings, Report(quiet=True)), 0, run.params)
    state, losses = stage.state, []
    for _, batch in itertools.islice(stage.loader.on_devices(), STEPS):
        assert batch["teacher_states"].ndim == 4
        state, info = stage.step(state, stage.frozen, batch)
        losses.append(float(info.loss.value))
    wanted = paths.flatten(jax.device_get(state.params))
    assert "error" not in outcome.facts, outcome.facts
    np.testing.assert_allclose(outcome.losses, losses, atol=2e-5)
    for leaf, value in wanted.items():
        np.testing.assert_allclose(outcome.params[f"params/{leaf}"], value, atol=2e-5, err_msg=leaf)
