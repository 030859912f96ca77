"""The cases of the cover that several devices share: the losses and parameters of one device."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import COVER, num_layers, values_with_kinds

from jaxtune.core import dropout, paths, trees
from jaxtune.models.trunk import make_upper_apply
from jaxtune.run import stages
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import make_tx
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection

STEPS = 2
PLACEMENTS = {  # devices, and what they share
    "mesh": (8, {"parallel.fsdp": 2, "parallel.tensor": 2}),
    "pmap": (4, {"parallel.mode": "pmap"}),
}
PRECISIONS = {
    "float32": {},
    "bfloat16": {"precision.compute_dtype": "bfloat16"},
    "frozen bfloat16": {"precision.frozen_dtype": "bfloat16"},
}
SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "optimizer.schedule": "constant"}
CASES = [case for case in COVER if case.placement in PLACEMENTS]
FEWER = values_with_kinds(CASES)


@pytest.fixture(scope="module")
def settings(tiny_weights, write_settings, tmp_path_factory):
    """A function: case on several devices -> a folder with the config, overrides, all of it."""

    @functools.cache
    def make(case):
        folder = tmp_path_factory.mktemp("case")
        model = tiny_weights(case.task, case.family, num_layers(case))
        fields = PRECISIONS[case.precision] | SGD | {"data.layout": case.layout}
        if case.family == "resnet":  # the tiny one has sizes that no two devices can share
            fields |= {"parallel.rules": ".*=-"}
        written = write_settings(case.task, case.strategy, model, folder, fields)
        return folder, fields, written

    return make


def run_cases(cases, settings, run_on):
    """Outcomes by case, all from one process."""
    devices, placed = PLACEMENTS[cases[0].placement]
    jobs = {}
    for case in cases:
        folder, fields, _ = settings(case)
        overrides = {name: str(value) for name, value in (fields | placed).items()}
        config = str(folder / "config.json")
        jobs[case] = {"name": "-".join(case), "config": config, "overrides": overrides}
    found = run_on([job | {"steps": STEPS} for job in jobs.values()], devices)
    return {case: found[job["name"]] for case, job in jobs.items()}


def alone(settings):
    """The losses and parameters of one device."""
    run = prepare(settings, Report(quiet=True))
    stage, apply_fn = stages.begin(run, 0, run.params), run.tuning.apply_fn
    if depth := run.tuning.trunks[0].depth:
        upper = make_upper_apply(run.pretrained.module, depth)
        apply_fn = injection.adapt(run.tuning.strategy, upper)
    step = jax.jit(
        make_train_step(apply_fn, run.goal.loss_fn, make_tx(run, 0), part_key=dropout.same_key)
    )
    state, losses = stage.state, []
    for _, batch in itertools.islice(stage.loader.batches(), STEPS):
        state, info = step(state, stage.frozen, jax.tree.map(jnp.asarray, batch))
        losses.append(float(info.loss.value))
    return losses, paths.flatten(jax.device_get(trees.merge(state.params, stage.frozen)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_steps_of_all_are_those_of_one_device(placement, settings, run_on):
    check([case for case in CASES if case.placement == placement], settings, run_on)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_steps_are_those_of_one_device(placement, settings, run_on):
    check([case for case in FEWER if case.placement == placement], settings, run_on)


def check(cases, settings, run_on):
    for case, found in run_cases(cases, settings, run_on).items():
        assert "error" not in found.facts, (case, found.facts.get("error"))
        losses, params = alone(settings(case)[2])
        close = {"rtol": 0, "atol": 2e-5 if case.precision == "float32" else 1e-3}
        np.testing.assert_allclose(found.losses, losses, err_msg=str(case), **close)
        for name, leaf in params.items():
            wanted = np.asarray(leaf, np.float32)
            message = f"{case}: {name}"
            np.testing.assert_allclose(
                found.params[f"params/{name}"], wanted, err_msg=message, **close
            )
