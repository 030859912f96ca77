"""A run on one device, and the same on eight, however they share the work."""

import math

import numpy as np
import pytest

FULL_BATCH = {"data.layout": "padded"}  # as many rows whatever the devices
TUNINGS = {
    "full": {},
    "last_layers": {"tuning.name": "last_layers", "tuning.num_layers": 1},
    "lora": {"tuning.name": "lora", "tuning.rank": 2, "tuning.dropout": 0.2},
    "head": {"tuning.name": "head"},
}
MESHES = {
    "data": {},
    "fsdp": {"parallel.fsdp": 8},
    "tensor 2 x data 4": {"parallel.tensor": 2},
    "fsdp 4 x tensor 2": {"parallel.fsdp": 4, "parallel.tensor": 2},
    "data 2 x fsdp 2 x tensor 2": {"parallel.fsdp": 2, "parallel.tensor": 2},
    "pmap": {"parallel.mode": "pmap"},
}
VARIANTS = {
    "packed": {},
    "microbatches": {"train.num_microbatches": 2},
    "bfloat16 frozen": TUNINGS["lora"] | {"precision.frozen_dtype": "bfloat16"},
    "cached": TUNINGS["last_layers"],
    "head": TUNINGS["head"],
    "checkpointing": {"train.gradient_checkpointing": "true"},
}
PARTS = [
    (mesh, variant)
    for mesh in MESHES
    for variant in VARIANTS
    # All variants on the mesh of all axes, and one on every mesh.
    if variant == "packed" or mesh in ("data 2 x fsdp 2 x tensor 2", "pmap")
]


@pytest.fixture(scope="module")
def one(run_on, job):
    jobs = [job(name, fields, steps=20, scores=True) for name, fields in VARIANTS.items()]
    return run_on(jobs, 1)


@pytest.fixture(scope="module")
def eight(run_on, job):
    jobs = [
        job(f"{mesh}, {variant}", MESHES[mesh] | VARIANTS[variant], steps=20, scores=True)
        for mesh, variant in PARTS
    ]
    return run_on(jobs, 8)


@pytest.mark.parametrize(("mesh", "variant"), PARTS)
def test_twenty_steps_with_dropout_are_those_of_one_device(mesh, variant, one, eight):
    """In packed batches too, whose rows are a multiple of the devices and so others."""
    expected, found = one[variant], eight[f"{mesh}, {variant}"]
    assert np.ptp(expected.losses) > 0.05
    np.testing.assert_allclose(found.losses, expected.losses, atol=2e-5)
    for name, leaf in expected.params.items():
        np.testing.assert_allclose(found.params[name], leaf, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(("mesh", "variant"), PARTS)
def test_every_example_is_scored_once(mesh, variant, one, eight):
    expected, found = one[variant], eight[f"{mesh}, {variant}"]
    np.testing.assert_allclose(found.arrays["outputs"], expected.arrays["outputs"], atol=1e-4)
    loss = found.facts["scores"].pop("loss", None)
    if loss is not None:
        assert loss == pytest.approx(expected.facts["scores"].pop("loss"), abs=2e-5)
    assert found.facts["scores"] == expected.facts["scores"]


@pytest.fixture(scope="module")
def programs(run_on, job):
    """The compiled steps of every strategy on meshes of 1, 2, 4 and 8 devices."""
    found = {}
    for devices in (1, 2, 4, 8):
        jobs = [
            job(f"{axis} {name}", FULL_BATCH | fields | size, steps=1, program=True)
            for name, fields in TUNINGS.items()
            for axis, size in (("data", {}), ("fsdp", {"parallel.fsdp": devices}))
        ]
        jobs.append(
            job(
                "tensor full",
                FULL_BATCH | {"parallel.tensor": min(devices, 4)},
                steps=1,
                program=True,
            )
        )
        for name, outcome in run_on(jobs, devices).items():
            found[devices, name] = outcome.facts
    return found


def num_bytes(facts, operation):
    sizes = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
    return sum(
        sizes[kind] * math.prod(dims)
        for found, shapes in facts["collectives"]
        for kind, dims in shapes
        if found == operation
    )


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_data_parallel_sums_the_gradients_of_what_is_trained_and_nothing_else(
    tuning, devices, programs
):
    facts = programs[devices, f"data {tuning}"]
    assert {operation for operation, _ in facts["collectives"]} == {"all-reduce"}
    scalars = 8  # the sum of the losses and that of the weights
    assert num_bytes(facts, "all-reduce") == facts["trainable_bytes"] + scalars


def test_one_device_communicates_nothing(programs):
    assert not programs[1, "data full"]["collectives"]


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_fsdp_divides_what_a_device_keeps(tuning, devices, programs):
    whole = programs[1, f"data {tuning}"]["argument_bytes"]
    part = programs[devices, f"fsdp {tuning}"]["argument_bytes"]
    leaves_kept_whole = 0.10  # biases and LayerNorms, of which so narrow a model has many
    assert whole / devices <= part <= whole * (1 / devices + leaves_kept_whole)


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_fsdp_gathers_a_parameter_once_and_scatters_its_gradient_once(tuning, devices, programs):
    facts = programs[devices, f"fsdp {tuning}"]
    kinds = {operation for operation, _ in facts["collectives"]}
    assert kinds <= {"all-gather", "reduce-scatter", "all-reduce"}
    rows = facts["shapes"]["input_ids"][0]
    gathered = [
        dims for op, found in facts["collectives"] for _, dims in found if op == "all-gather"
    ]
    assert all(dims[0] != rows for dims in gathered)  # no part of the batch
    reduced = num_bytes(facts, "all-reduce") + devices * num_bytes(facts, "reduce-scatter")
    scalars = reduced - facts["trainable_bytes"]
    assert 0 <= scalars <= 8 + 4 * (facts["trainable_leaves"] + 1)  # losses; norms for clipping


def test_tensor_parallel_sums_activations_and_gathers_no_parameter(programs):
    facts = programs[2, "tensor full"]
    assert {operation for operation, _ in facts["collectives"]} == {"all-reduce"}
