"""A function with its first arguments, as a value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bound:
    """`functools.partial`, but equal to another of the same function and arguments.

    So modules that are made twice from one config are equal, and what was traced for one of them
    is not traced for the other.

    Attributes:
      function: that is called.
      first: its first arguments, hashable.
    """

    function: Callable[..., Any]
    first: tuple[Any, ...]

    def __call__(self, *rest: Any, **named: Any) -> Any:
        """What the function gives for its first arguments and these."""
        return self.function(*self.first, *rest, **named)


def bind(function: Callable[..., Any], *first: Any) -> Bound:
    """A function with its first arguments."""
    return Bound(function, first)
