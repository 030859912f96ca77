"""A checkpoint that four devices wrote is read by one, on another mesh, and under pmap."""

import numpy as np

STEPS = 3
PACKED = {"data.layout": "packed"}
RESUMES = {
    "one": (1, {}),
    "fsdp 2 x tensor 2": (4, {"parallel.fsdp": 2, "parallel.tensor": 2}),
    "pmap": (4, {"parallel.mode": "pmap"}),
}


def test_the_next_losses_are_those_of_a_run_that_was_not_stopped(run_on, job, tmp_path):
    folder = str(tmp_path)
    saved = job("saved", PACKED | {"parallel.fsdp": 4}, steps=STEPS, save=folder)
    first = {4: saved, 1: job("whole", PACKED, steps=2 * STEPS)}
    outcomes = {}
    for devices, before in first.items():
        again = [
            job(name, PACKED | fields, steps=STEPS, restore=folder)
            for name, (count, fields) in RESUMES.items()
            if count == devices
        ]
        outcomes |= run_on([before, *again], devices)
    whole = outcomes["whole"]
    for name, found in outcomes.items():
        if name in RESUMES:
            np.testing.assert_allclose(found.losses, whole.losses[STEPS:], atol=2e-5, err_msg=name)
            for leaf, value in whole.params.items():
                np.testing.assert_allclose(found.params[leaf], value, atol=2e-5, err_msg=leaf)
