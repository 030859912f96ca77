import threading

import pytest

from jaxtune.core.errors import UserError
from jaxtune.training.prefetch import prefetch


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_all_items_in_their_order(count, ahead):
    assert list(prefetch(iter(range(count)), ahead)) == list(range(count))
    assert not threads()


def test_items_are_made_ahead_and_not_more_than_asked_for():
    made, second = [], threading.Event()

    def items():
        for i in range(100):
            made.append(i)
            if i == 2:
                second.set()
            yield i

    stream = prefetch(items(), 2)
    assert made == []  # nothing before the first is asked for
    assert next(stream) == 0
    assert second.wait(10)  # 1 and 2 are made without being asked for
    assert next(stream) == 1
    assert next(stream) == 2
    stream.close()
    assert len(made) <= 5


@pytest.mark.parametrize("kind", [UserError, ValueError, StopAsyncIteration])
def test_an_exception_comes_where_its_item_would_have_been(kind):
    def items():
        yield from range(3)
        raise kind("row 7")

    stream, found = prefetch(items()), []
    with pytest.raises(kind, match="row 7"):
        found.extend(stream)
    stream = prefetch(items())
    found = [next(stream) for _ in range(3)]
    assert found == [0, 1, 2]
    with pytest.raises(kind, match="row 7"):
        next(stream)
    assert not threads()


def test_closing_ends_the_thread():
    stream = prefetch(iter(range(100)))
    next(stream)
    assert len(threads()) == 1
    stream.close()
    assert not threads()


def test_an_exception_of_the_consumer_ends_the_thread():
    def consume():
        for item in prefetch(iter(range(100))):
            if item == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not threads()
