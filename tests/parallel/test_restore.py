"""A checkpoint that eight devices wrote is read by one, by four, and under pmap."""

import numpy as np
import pytest

STEPS = 3
PACKED = {"data.layout": "packed"}
RESUMES = {
    "one": (1, {}),
    "fsdp 2 x tensor 2": (4, {"parallel.fsdp": 2, "parallel.tensor": 2}),
    "pmap": (4, {"parallel.mode": "pmap"}),
}


@pytest.fixture(scope="module")
def whole(run_on, job):
    """Uninterrupted, on one device."""
    return run_on([job("whole", PACKED, steps=2 * STEPS)], 1)["whole"]


def test_the_next_losses_are_those_of_a_run_that_was_not_stopped(run_on, job, whole, tmp_path):
    folder = str(tmp_path)
    run_on([job("saved", PACKED | {"parallel.fsdp": 8}, steps=STEPS, save=folder)], 8)
    for devices in {count for count, _ in RESUMES.values()}:
        jobs = [
            job(name, PACKED | fields, steps=STEPS, restore=folder)
            for name, (count, fields) in RESUMES.items()
            if count == devices
        ]
        for name, found in run_on(jobs, devices).items():
            np.testing.assert_allclose(found.losses, whole.losses[STEPS:], atol=2e-5, err_msg=name)
            for leaf, value in whole.params.items():
                np.testing.assert_allclose(found.params[leaf], value, atol=2e-5, err_msg=leaf)
