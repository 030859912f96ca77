"""Results that are kept for arguments that were given before."""

import functools
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def keep_results(size: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """`functools.lru_cache`, for functions of which some arguments cannot be hashed.

    Those are computed each time: a module of a user's own may hold arrays.

    Args:
      size: how many results are kept.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        kept = functools.lru_cache(size)(function)

        @functools.wraps(function)
        def call(*args: object) -> T:
            try:
                hash(args)
            except TypeError:
                return function(*args)
            return kept(*args)

        return call

    return decorate
