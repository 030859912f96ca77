"""Whether a step is traced for its operations to be counted, and not for it to run.

JAX counts the body of a loop as run once, so that what is counted is written without the loops that
save memory.
"""

import contextlib
import contextvars
from collections.abc import Iterator

_share: contextvars.ContextVar[float | None] = contextvars.ContextVar("share", default=None)


@contextlib.contextmanager
def counting(scored: float = 1.0) -> Iterator[None]:
    """In it, what is traced is to be counted.

    Args:
      scored: of the tokens of a batch, the share that is scored.
    """
    token = _share.set(scored)
    try:
        yield
    finally:
        _share.reset(token)


def share_counted() -> float | None:
    """The share of the tokens that is scored; None where nothing is counted."""
    return _share.get()
