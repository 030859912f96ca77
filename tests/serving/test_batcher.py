"""The queue: what waits is taken together, and each request gets its own outputs."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np
import pytest
from serving_client import wait_for

from jaxtune.serving.batcher import Batcher, ClosedError, NotFiniteError, QueueFullError
from jaxtune.serving.shapes import grid_of_texts

GRID = grid_of_texts(128, 1024)


class Fake(NamedTuple):
    """Examples whose outputs are `values`."""

    lengths: np.ndarray
    values: list


def fake(*values, length=20):
    return Fake(np.full(len(values), length), [np.array([v], np.float32) for v in values])


class Model:
    """Gives the values of the examples; it can be held."""

    def __init__(self):
        self.free, self.sizes = threading.Event(), []
        self.free.set()

    def __call__(self, parts, filled):
        self.sizes.append(len(parts))
        self.free.wait(30)
        assert sorted(i for row in filled.rows for i in row) == list(range(len(parts)))
        return [examples.values[i] for examples, i in parts]


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    found = Batcher(model, GRID, 200)
    yield found
    model.free.set()
    assert found.close(10)


def held(batcher, model):
    """Holds the model in a batch of one."""
    model.free.clear()
    first = batcher.submit(fake(0.0))
    wait_for(lambda: model.sizes)
    return first


def test_each_request_gets_its_own_outputs(batcher):
    def one(i):
        outputs = batcher.submit(fake(*(100.0 * i + j for j in range(i % 5 + 1)))).result(30)
        return [float(x[0]) for x in outputs]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(300)))
    assert found == [[100.0 * i + j for j in range(i % 5 + 1)] for i in range(300)]


def test_what_waits_is_taken_at_once(batcher, model):
    first = held(batcher, model)
    rest = [batcher.submit(fake(float(i))) for i in range(100)]
    assert batcher.num_waiting == 100
    model.free.set()
    wait([first, *rest], 30)
    assert model.sizes == [1, 48, 48, 4]  # 8 rows of 128 tokens hold 6 times 20 each


def test_a_full_queue_refuses_and_a_cancelled_request_makes_room(batcher, model):
    first = held(batcher, model)
    many = batcher.submit(fake(*map(float, range(150))))
    with pytest.raises(QueueFullError):
        batcher.submit(fake(*map(float, range(51))))
    few = batcher.submit(fake(*map(float, range(50))))
    assert many.cancel()
    assert batcher.num_waiting == 50
    model.free.set()
    assert [float(x[0]) for x in few.result(30)] == [*map(float, range(50))]
    assert first.result(30)
    assert sum(model.sizes) == 51
    with pytest.raises(CancelledError):
        many.result(1)


def test_the_failure_of_a_batch_is_that_of_its_requests_alone():
    def run(parts, filled):
        if any(float(examples.values[i][0]) < 0 for examples, i in parts):
            raise RuntimeError("no memory")
        return [examples.values[i] for examples, i in parts]

    batcher = Batcher(run, GRID, 200)
    with pytest.raises(RuntimeError, match="no memory"):
        batcher.submit(fake(1.0, -1.0)).result(30)
    with pytest.raises(NotFiniteError):
        batcher.submit(fake(1.0, np.nan)).result(30)
    assert batcher.submit(fake(3.0)).result(30)
    assert batcher.close(10)


def test_the_end_answers_what_waits_and_takes_nothing_more(model):
    batcher = Batcher(model, GRID, 200)
    first = held(batcher, model)
    second = batcher.submit(fake(2.0))
    assert not batcher.close(0.01)
    with pytest.raises(ClosedError):
        batcher.submit(fake(3.0))
    model.free.set()
    assert batcher.close(10)
    assert float(first.result(0)[0][0]) == 0.0
    assert float(second.result(0)[0][0]) == 2.0
