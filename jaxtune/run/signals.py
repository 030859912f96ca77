"""SIGINT and SIGTERM end a run after the step that is under way, with a checkpoint."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax

from jaxtune.parallel import multihost


class InterruptedRunError(Exception):
    """A signal asked the run to stop; its checkpoint is written.

    Attributes:
      signum: the signal.
    """

    def __init__(self, signum: int, step: int) -> None:
        """Says how to go on."""
        self.signum = signum
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} at step {step}; the same command goes on from there.")


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
    """Collects signals in a list; a second one acts at once."""
    received: list[int] = []
    old: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        del frame
        received.append(signum)
        signal.signal(signum, old[signum])

    with contextlib.suppress(ValueError):  # not the main thread: its owner handles signals
        for signum in (signal.SIGINT, signal.SIGTERM):
            old[signum] = signal.signal(signum, note)
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def agreed(received: list[int], at_log: bool) -> int:
    """The signal to stop on, or 0; several processes settle that at the lines of the log."""
    own = received[0] if received else 0
    if jax.process_count() == 1:
        return own
    return multihost.largest(own) if at_log else 0
