"""A checkpoint that eight devices wrote is read by one, by four, by eight, and under pmap."""

import numpy as np
import pytest

STEPS = 3
PACKED = {"data.layout": "packed"}
RESUMES = {
    "one": (1, {}),
    "fsdp 2 x tensor 2": (4, {"parallel.fsdp": 2, "parallel.tensor": 2}),
    "pmap": (4, {"parallel.mode": "pmap"}),
}


@pytest.mark.exhaustive
def test_the_next_losses_are_those_of_a_run_that_was_not_stopped(run_on, job, tmp_path):
    folder = str(tmp_path)
    run_on([job("saved", PACKED | {"parallel.fsdp": 8}, steps=STEPS, save=folder)], 8)
    jobs = {1: [job("whole", PACKED, steps=2 * STEPS)], 4: []}
    for name, (devices, fields) in RESUMES.items():
        jobs[devices].append(job(name, PACKED | fields, steps=STEPS, restore=folder))
    outcomes = run_on(jobs[1], 1) | run_on(jobs[4], 4)
    whole = outcomes.pop("whole")
    for name, found in outcomes.items():
        np.testing.assert_allclose(found.losses, whole.losses[STEPS:], atol=2e-5, err_msg=name)
        for leaf, value in whole.params.items():
            np.testing.assert_allclose(found.params[leaf], value, atol=2e-5, err_msg=leaf)


def test_the_same_mesh_goes_on_with_the_same_bits(run_on, job, tmp_path):
    """Moments lie in parts on the four devices; the folder has them whole, for one as well."""
    folder = str(tmp_path)
    jobs = [
        job("bits saved", PACKED, steps=STEPS, save=folder),
        job("bits", PACKED, steps=STEPS, restore=folder),
        job("bits whole", PACKED, steps=2 * STEPS),
    ]
    found = run_on(jobs, 4)
    whole = found["bits whole"]
    np.testing.assert_array_equal(found["bits"].losses, whole.losses[STEPS:])
    for leaf, value in whole.params.items():
        np.testing.assert_array_equal(found["bits"].params[leaf], value, err_msg=leaf)
    alone = run_on([job("bits alone", PACKED, steps=STEPS, restore=folder)], 1)["bits alone"]
    np.testing.assert_allclose(alone.losses, whole.losses[STEPS:], atol=2e-5)
