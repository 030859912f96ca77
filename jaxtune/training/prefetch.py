"""Items made ahead of their use, in one background thread."""

import itertools
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

AHEAD = 2  # one to take while the next is made; more only fills memory


def prefetch(items: Iterable[T], ahead: int = AHEAD) -> Generator[T, None, None]:
    """The items in their order, made by one thread before they are asked for.

    An exception of `items` is raised where the item would have been. Closing the generator ends the
    thread, at the latest when the item that it is making is done.

    Args:
      items: used by that thread alone.
      ahead: how many are held beside the one in use, at least 1.
    """
    source = iter(items)

    def take() -> list[T]:  # none at the end
        return list(itertools.islice(source, 1))

    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        waiting = deque(pool.submit(take) for _ in range(ahead))
        while taken := waiting.popleft().result():
            waiting.append(pool.submit(take))
            yield taken[0]
    finally:
        pool.shutdown(cancel_futures=True)
