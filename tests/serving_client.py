"""A tiny model that is served in this process, and what a client of it does."""

import contextlib
import time

from starlette.testclient import TestClient

from jaxtune.run.saved import open_saved
from jaxtune.serving.app import make_app
from jaxtune.serving.bodies import Limits
from jaxtune.serving.served import Served
from jaxtune.serving.service import Service

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
"""How far the outputs of two shapes of a batch may lie apart."""

LIMITS = Limits(max_bytes=20_000, max_rows=40, max_waiting=100, seconds=20.0)


def wait_for(condition, seconds=60.0):
    """Until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@contextlib.contextmanager
def serving(folder, limits=LIMITS, name="tiny/model", wait=True, change=lambda served: None):
    """A client of a server of a model, which is warm unless `wait` is false."""
    served = Served(open_saved(folder))
    change(served)
    service = Service(served, name, limits)
    with TestClient(make_app(service)) as client:
        client.service = service
        if wait:
            wait_for(lambda: client.get("/health").status_code == 200)
        yield client


def ask(client, *inputs, **more):
    return client.post("/predict", json={"inputs": list(inputs)}, **more)
