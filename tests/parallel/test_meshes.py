"""A run on one device, and the same on eight, however they share the work."""

import numpy as np
import pytest
from cover import mark_rest

TUNINGS = {
    "full": {},
    "last_layers": {"tuning.name": "last_layers", "tuning.num_layers": 1},
    "lora": {"tuning.name": "lora", "tuning.rank": 2, "tuning.dropout": 0.2},
    "head": {"tuning.name": "head"},
}
ALL_AXES = {"parallel.fsdp": 2, "parallel.tensor": 2}  # and data 2
MESHES = {
    "data": {},
    "fsdp": {"parallel.fsdp": 8},
    "tensor": {"parallel.tensor": 8},
    "tensor 2 x data 4": {"parallel.tensor": 2},
    "fsdp 4 x tensor 2": {"parallel.fsdp": 4, "parallel.tensor": 2},
    "all axes": ALL_AXES,
    "pmap": {"parallel.mode": "pmap"},
}
VARIANTS = {
    "padded": {},
    "packed": {"data.layout": "packed"},
    "microbatches": {"train.num_microbatches": 2},
    "bfloat16 frozen": TUNINGS["lora"] | {"precision.frozen_dtype": "bfloat16"},
    "cached": TUNINGS["last_layers"],
    "head": TUNINGS["head"],
    "checkpointing": {"train.gradient_checkpointing": "true"},
    "averaged": {"optimizer.ema_decay": 0.9, "train.on_nonfinite": "skip"},
}
SCORED = ("padded", "cached")
PARTS = [
    *((mesh, "padded") for mesh in MESHES),
    *((mesh, variant) for mesh in ("data", "pmap") for variant in ("packed", "averaged")),
    *(("all axes", variant) for variant in VARIANTS if variant not in ("padded", "packed")),
]
DEFAULT = []  # they are in the cover of pairs, with fewer steps, and in two processes
SCORED_PARTS = [("data", "padded"), ("all axes", "padded"), ("all axes", "cached")]
PROGRAMS = {  # of several devices, and which of them the default tests compile
    "data": (TUNINGS, ("lora",)),
    "fsdp": (("full", "lora"), ()),
    "fsdp x tensor": (("full", "lora"), ("full",)),
    "tensor": (("full", "lora"), ()),
}
SIZES = {
    "data": {},
    "fsdp": {"parallel.fsdp": 8},
    "fsdp x tensor": {"parallel.fsdp": 4, "parallel.tensor": 2},
    "tensor": {"parallel.tensor": 4},
}


def wanted(request, *names):
    """The values of some parameters in the tests that are run, whichever process runs them."""
    found = {}
    for item in request.session.items:
        params = getattr(item, "callspec", None) and item.callspec.params
        if item.path == request.path and params and set(names) <= params.keys():
            found[tuple(params[name] for name in names)] = None
    return list(found)


@pytest.fixture(scope="module")
def one(request, run_on, job):
    jobs = [
        job(name, VARIANTS[name], steps=20, scores=name in SCORED)
        for (name,) in wanted(request, "variant")
    ]
    return run_on(jobs, 1)


@pytest.fixture(scope="module")
def eight(request, run_on, job):
    jobs = [
        job(
            f"{mesh}, {variant}",
            MESHES[mesh] | VARIANTS[variant],
            steps=20,
            scores=(mesh, variant) in SCORED_PARTS,
        )
        for mesh, variant in wanted(request, "mesh", "variant")
    ]
    return run_on(jobs, 8)


@pytest.fixture
def two_processes(variant, run_on, job):
    """Each with two devices; the rows of a batch, the kept states and the writing are shared."""
    fields = VARIANTS[variant] | ({"parallel.fsdp": 2} if variant == "cached" else {})
    jobs = [job(variant, fields, steps=20, scores=True)]
    return run_on(jobs, 2, 2)


@pytest.mark.parametrize("variant", mark_rest(SCORED, ("cached",)))
def test_two_processes_are_one(variant, one, two_processes):
    check(two_processes[variant], one[variant])
    check_scores(two_processes[variant], one[variant])


@pytest.mark.parametrize(("mesh", "variant"), mark_rest(PARTS, DEFAULT))
def test_twenty_steps_with_dropout_are_those_of_one_device(mesh, variant, one, eight):
    """In packed batches too, whose rows are a multiple of the devices and so others."""
    check(eight[f"{mesh}, {variant}"], one[variant])


def check(found, expected):
    assert np.ptp(expected.losses) > 0.05
    np.testing.assert_allclose(found.losses, expected.losses, atol=2e-5)
    for name, leaf in expected.params.items():
        np.testing.assert_allclose(found.params[name], leaf, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(("mesh", "variant"), mark_rest(SCORED_PARTS, DEFAULT))
def test_every_example_is_scored_once(mesh, variant, one, eight):
    """61 examples in batches of 16."""
    check_scores(eight[f"{mesh}, {variant}"], one[variant])


def check_scores(found, expected):
    np.testing.assert_allclose(found.arrays["outputs"], expected.arrays["outputs"], atol=1e-4)
    scores = dict(expected.facts["scores"])
    near = {"loss": pytest.approx(scores.pop("loss"), abs=2e-5)}  # the only sum of rounded numbers
    assert found.facts["scores"] == scores | near


@pytest.fixture(scope="module")
def programs(request, run_on, job):
    """The compiled steps on eight devices, by axis and strategy, and on one."""
    on_eight = wanted(request, "axis", "tuning")
    whole = [("data", tuning) for axis, tuning in on_eight if axis == "fsdp"]
    on_one = dict.fromkeys([("data", "full"), *whole])
    found = {}
    for devices, cases in ((8, on_eight), (1, list(on_one))):
        jobs = [
            job(f"{axis} {tuning}", TUNINGS[tuning] | SIZES[axis], steps=1, program=True)
            for axis, tuning in cases
        ]
        for case, outcome in zip(cases, run_on(jobs, devices).values(), strict=True):
            found[devices, *case] = outcome.facts
    return found


def programs_of(*axes):
    """Parameters of a test: some axes with their strategies."""
    cases = [(axis, tuning) for axis in axes for tuning in PROGRAMS[axis][0]]
    kept = [(axis, tuning) for axis, tuning in cases if tuning in PROGRAMS[axis][1]]
    return pytest.mark.parametrize(("axis", "tuning"), mark_rest(cases, kept))


def num_bytes(facts, operation):
    """Of what is whole, whatever part of it a device has."""
    return sum(size for found, size, _ in facts["collectives"] if found == operation)


def shared_bytes(facts):
    """Of the trained leaves that eight devices on `data` share out: matrices with a dimension."""
    shapes = facts["trained_shapes"]
    return sum(
        4 * int(np.prod(shape))
        for shape in shapes
        if len(shape) > 1 and any(n % 8 == 0 for n in shape)
    )


@programs_of("data")
def test_data_parallel_sends_the_gradients_and_the_new_values_of_what_is_trained_alone(
    axis, tuning, programs
):
    facts = programs[8, axis, tuning]
    shared = shared_bytes(facts)
    assert 0 < shared < facts["trainable_bytes"]
    kinds = {operation for operation, *_ in facts["collectives"]}
    assert kinds == {"reduce-scatter", "all-gather", "all-reduce"}
    assert num_bytes(facts, "reduce-scatter") == num_bytes(facts, "all-gather") == shared
    scalars = num_bytes(facts, "all-reduce") - (facts["trainable_bytes"] - shared)
    assert 8 <= scalars <= 8 + 8 * facts["trainable_leaves"]  # losses; norms to report and to clip


@programs_of("data")
def test_each_device_on_data_keeps_a_part_of_the_moments(axis, tuning, programs):
    facts = programs[8, axis, tuning]
    moments = 2 * shared_bytes(facts)  # of Adam
    others = facts["moment_bytes"] - moments
    assert facts["own_moment_bytes"] == moments / 8 + others
    small = 2 * (facts["trainable_bytes"] - shared_bytes(facts))
    assert small <= others <= small + 100  # and the counts of steps


def test_one_device_communicates_nothing(programs):
    assert not programs[1, "data", "full"]["collectives"]


@programs_of("fsdp")
def test_fsdp_divides_what_a_device_keeps(axis, tuning, programs):
    whole = programs[1, "data", tuning]["argument_bytes"]
    part = programs[8, axis, tuning]["argument_bytes"]
    leaves_kept_whole = 0.10  # biases and LayerNorms, of which so narrow a model has many
    assert whole / 8 <= part <= whole * (1 / 8 + leaves_kept_whole)


@programs_of("fsdp")
def test_fsdp_gathers_a_parameter_once_and_scatters_its_gradient_once(axis, tuning, programs):
    facts = programs[8, axis, tuning]
    kinds = {operation for operation, *_ in facts["collectives"]}
    assert kinds <= {"all-gather", "reduce-scatter", "all-reduce"}
    rows = facts["shapes"]["input_ids"][0]
    gathered = [
        dims for op, _, found in facts["collectives"] for dims in found if op == "all-gather"
    ]
    assert all(dims[0] != rows for dims in gathered)  # no part of the batch
    reduced = num_bytes(facts, "all-reduce") + num_bytes(facts, "reduce-scatter")
    scalars = reduced - facts["trainable_bytes"]
    assert 0 <= scalars <= 8 + 4 * (facts["trainable_leaves"] + 1)  # losses; norms for clipping


@programs_of("fsdp", "fsdp x tensor")
def test_no_device_gathers_more_than_its_part_over_tensor(axis, tuning, programs):
    facts = programs[8, axis, tuning]
    assert num_bytes(facts, "all-gather") == facts["bytes_to_gather"]


@programs_of("tensor")
def test_tensor_parallel_sums_activations_and_gathers_only_what_data_shares_out(
    axis, tuning, programs
):
    """No device has more of a parameter than its part over `tensor`."""
    facts = programs[8, axis, tuning]
    kinds = {operation for operation, *_ in facts["collectives"]}
    assert kinds == {"all-reduce", "reduce-scatter", "all-gather"}
    shared = facts["bytes_in_parts"]
    assert num_bytes(facts, "reduce-scatter") == num_bytes(facts, "all-gather") == shared
