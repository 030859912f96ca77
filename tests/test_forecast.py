"""What a run needs of devices that are not here; this machine's own stand for them."""

import dataclasses
import json
import os

import jax
import pytest

from jaxtune import main
from jaxtune.analysis import targets
from jaxtune.analysis.targets import CHIPS, Target, find_target, topology
from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.core.extras import is_installed
from jaxtune.run import footprint, forecast, stages
from jaxtune.run.console import Report
from jaxtune.run.footprint import Footprint
from jaxtune.run.prepare import prepare

TINY = CHIPS["h100"]._replace(device=CHIPS["h100"].device._replace(platform="cpu"))


@pytest.fixture
def here(monkeypatch):
    """A target that is this machine."""
    target = Target("h100", TINY, (jax.devices()[0],))
    monkeypatch.setattr(forecast, "find_target", lambda name: target)
    return target


@pytest.fixture
def settings(tiny_settings, tiny_weights):
    return tiny_settings("classification", "full", tiny_weights("classification", "bert", 1))


def test_a_plan_reads_no_values_and_counts_what_a_device_holds(
    settings, here, tmp_path, monkeypatch
):
    run = prepare(settings, Report(quiet=True), target=here)
    assert trees.is_outline(run.params)
    monkeypatch.setattr(forecast, "find_rows", lambda run, index, target, found, say: 1000)
    found = forecast.forecast(settings, "h100", tmp_path, Report(quiet=True))
    assert found == json.loads((tmp_path / "plan.json").read_text())
    numbers = trees.count(run.params)
    assert found["parameter_bytes"] == 4 * numbers
    assert 8 * numbers <= found["moment_bytes"] < 8 * numbers + 200
    assert found["temporary_bytes"] > 0
    assert found["fits"]
    assert found["sent"] == {}
    assert found["steps_per_epoch"] == run.goal.steps_per_epoch
    assert 0 < found["epoch_seconds"] <= found["roofline_ms"] / 1e3 * found["steps_per_epoch"]
    assert found["largest_batch"] > settings.train.batch_size


def test_a_planned_run_has_the_shapes_of_the_run(settings, here):
    lora = dataclasses.replace(settings, tuning=dataclasses.replace(settings.tuning, name="lora"))
    half = dataclasses.replace(lora.precision, frozen_dtype="bfloat16")
    lora = dataclasses.replace(lora, precision=half)
    planned = prepare(lora, Report(quiet=True), target=here)
    made = prepare(lora, Report(quiet=True))
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), run.params) for run in (planned, made)]
    assert kinds[0] == kinds[1]
    assert planned.tuning.stage_labels == made.tuning.stage_labels


@pytest.mark.parametrize(("strategy", "field"), [("last_layers", {"num_layers": 1}), ("head", {})])
def test_frozen_layers_are_no_part_of_the_step(
    tiny_settings, tiny_weights, here, tmp_path, strategy, field
):
    """Its batch is what the loader gives, states among it."""
    weights = tiny_weights("classification", "bert")
    settings = tiny_settings("classification", strategy, weights)
    tuning = dataclasses.replace(settings.tuning, **field)
    settings = dataclasses.replace(settings, tuning=tuning)
    run = prepare(settings, Report(quiet=True), target=here)
    assert run.tuning.trunks[0].depth
    planned = footprint.largest_batch(run, 0)
    made = prepare(settings, Report(quiet=True))
    loader = stages.begin(made, 0, made.params, folder=tmp_path).loader
    _, batch = next(loader.batches())
    assert {name: (x.dtype, x.shape[2:]) for name, x in batch.items()} == {
        name: (x.dtype, x.shape[2:]) for name, x in planned.items()
    }
    assert footprint.measure(run, 0, planned, here) is not None


def in_proportion(per_row, fixed=1e9):
    """What `measure` would find, and the rows that it was asked for."""
    asked = []

    def measure(run, index, batch, target):
        rows = footprint.num_rows(batch)
        asked.append(rows)
        held = int(fixed + per_row(rows))
        empty = footprint.Launched((), ())
        return Footprint(int(fixed), 0, 0, held, held, empty, None, 0.0)

    return measure, asked


@pytest.mark.parametrize(
    ("per_row", "most"),
    [
        (lambda rows: rows * 1e9, 71),  # in proportion
        (lambda rows: rows * 1e9 + (rows > 40) * 40e9, 40),  # a jump
        (lambda rows: rows**1.2 * 1e9, 34),
        (lambda rows: rows * 30e9, 2),  # fewer than now
        (lambda rows: 1e12, 0),
    ],
)
def test_the_most_rows_that_fit_are_found(settings, here, monkeypatch, per_row, most):
    run = prepare(settings, Report(quiet=True), target=here)
    measure, asked = in_proportion(per_row)
    monkeypatch.setattr(forecast, "measure", measure)
    monkeypatch.setattr(forecast, "most_rows", lambda run, index: 1000)
    now = measure(run, 0, footprint.largest_batch(run, 0), here)
    rows = forecast.find_rows(run, 0, here, now, lambda line: None)
    assert most * 0.94 - 1 <= rows <= most
    assert len(asked) <= 7
    monkeypatch.setattr(forecast, "most_rows", lambda run, index: 20)
    assert forecast.find_rows(run, 0, here, now, lambda line: None) <= 20


def test_a_plan_that_does_not_fit_says_so(settings, here, monkeypatch, tmp_path):
    small = here._replace(chip=here.chip._replace(memory=1e3))
    monkeypatch.setattr(forecast, "find_target", lambda name: small)
    found = forecast.forecast(settings, "h100", tmp_path, Report(quiet=True))
    assert not found["fits"]
    assert found["largest_batch"] == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("h10", ("--target=h10", "Nearest: h100")),
        ("h100:0", ("'0' devices",)),
        ("v5e:4x", ("'4x' devices",)),
        ("h100:2x2x2", ("h100:HOSTSxCARDS",)),
    ],
)
def test_targets_that_there_are_not(monkeypatch, name, words):
    monkeypatch.setattr(targets, "is_installed", lambda package: True)
    with pytest.raises(UserError) as error:
        find_target(name)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(("name", "extra"), [("h100:8", "cuda12"), ("v5e:2x2", "tpu")])
def test_an_absent_compiler_names_the_extra(monkeypatch, name, extra):
    monkeypatch.setattr(targets, "is_installed", lambda package: False)
    with pytest.raises(UserError, match=rf"jaxtune\[{extra}\]"):
        find_target(name)


def test_what_jax_is_asked_for():
    assert topology("h100", "")["topology"] == "1x1x1"
    assert topology("h100", "8")["topology"] == "1x1x8"
    assert topology("h100", "4x8")["topology"] == "1x4x8"
    assert topology("v5e", "16x16")["topology_name"] == "v5e:16x16"
    assert topology("v5p", "")["topology_name"] == "v5p:2x2x1"


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--mode=plan"], "needs --target="), (["--target=h100"], "takes no --target")],
)
def test_a_plan_needs_a_target_and_nothing_else_takes_one(more, words):
    with pytest.raises(UserError, match=words):
        main.main(["--config=c.py", "--workdir=w", *more])


@pytest.mark.parametrize(
    ("name", "package"), [("h100", "jax_cuda12_plugin"), ("v5e", "libtpu"), ("h100:2", "nvidia")]
)
def test_a_program_is_compiled_for_a_device_that_is_not_here(settings, tmp_path, name, package):
    if not is_installed("jax_cuda12_plugin" if package == "nvidia" else package):
        pytest.skip(f"needs {package}")
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        pytest.skip("needs JAX_PLATFORMS=cpu, or the plugin looks for a device and gives up")
    half = dataclasses.replace(settings.precision, compute_dtype="bfloat16")
    target = find_target(name)
    run = prepare(dataclasses.replace(settings, precision=half), Report(quiet=True), target=target)
    found = footprint.measure(run, 0, footprint.largest_batch(run, 0), target)
    assert found is not None
    assert found.parameter_bytes == 4 * trees.count(run.params)
    assert found.roofline.kernels > 50
    assert found.roofline.flops > 0
    assert bool(found.launched.sent) == (name == "h100:2")
