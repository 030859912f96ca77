"""What a run is asked while it trains: to stop with a checkpoint, or to save one and go on.

SIGINT, SIGTERM and the end of `train.max_seconds` stop it after the step that is under way; SIGUSR1
saves. Once asked to stop, the next signal acts as if there were no run.
"""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax

from jaxtune.parallel import multihost

SAVE = getattr(signal, "SIGUSR1", None)
TIME_IS_UP = 14  # SIGALRM's number, which Windows does not name
_STOPS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(Exception):
    """The run was asked to stop; its checkpoint is written.

    Attributes:
      signum: the signal, or `TIME_IS_UP`.
    """

    def __init__(self, signum: int, step: int) -> None:
        """Says how to go on."""
        self.signum = signum
        name = "max_seconds" if signum == TIME_IS_UP else signal.Signals(signum).name
        super().__init__(f"stopped by {name} at step {step}; the same command goes on from there.")


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
    """Collects signals in a list; the one after the first that stops acts at once."""
    received: list[int] = []
    old: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        del frame
        received.append(signum)
        if signum in _STOPS:
            for stop in _STOPS:
                signal.signal(stop, old[stop])

    with contextlib.suppress(ValueError):  # not the main thread: its owner handles signals
        for signum in (*_STOPS, SAVE):
            if signum is not None:
                old[signum] = signal.signal(signum, note)
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def never_ended_by_save() -> Iterator[None]:
    """SIGUSR1, whose default is to end the process, does nothing where no step is taken."""
    old = None
    with contextlib.suppress(ValueError):
        old = signal.signal(SAVE, signal.SIG_IGN) if SAVE is not None else None
    try:
        yield
    finally:
        if old is not None and SAVE is not None:
            signal.signal(SAVE, old)


def agreed(received: list[int], at_log: bool) -> int:
    """The signal to act on, one to stop before `SAVE`, or 0.

    Several processes settle that at the lines of the log.
    """
    stops = [signum for signum in received if signum != SAVE]
    own = 2 + stops[0] if stops else len(received[:1])
    if jax.process_count() > 1:
        own = multihost.largest(own) if at_log else 0
    return own - 2 if own > 1 else own and int(SAVE or 0)
