"""What many clients ask, in batches: as soon as the model is free, of all that waits."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from jaxtune.serving.shapes import Filled, Grid, fill

Part = tuple[Any, int]
"""Examples of one request, and the index of one of them."""

RunBatch = Callable[[Sequence[Part], Filled], Sequence[np.ndarray]]
"""(examples of a batch, where each lies) -> the outputs of each."""

Outputs = list[np.ndarray]


class QueueFullError(Exception):
    """There is no room for so many more examples."""


class ClosedError(Exception):
    """Nothing is taken any more."""


class NotFiniteError(Exception):
    """The outputs of an example are NaN or infinite."""


class _Ticket(NamedTuple):
    """A request that is not answered yet.

    Attributes:
      examples: of it, n of them.
      outputs: of each, None as long as they are not known.
      future: gets all outputs.
    """

    examples: Any
    outputs: list[np.ndarray | None]
    future: Future[Outputs]


class _Waiting(NamedTuple):
    """An example that no batch has taken.

    Attributes:
      ticket: of its request.
      i: which of the request's.
      length: its tokens.
    """

    ticket: _Ticket
    i: int
    length: int


class Batcher:
    """A queue of examples, and the thread that sends them through the model in batches."""

    def __init__(
        self,
        run: RunBatch,
        grid: Grid,
        most: int,
        observe: Callable[[int], Any] = lambda size: None,
    ) -> None:
        """Starts the thread.

        Args:
          run: called by that thread alone.
          grid: the shapes of batches.
          most: examples that may wait.
          observe: called with the number of examples of each batch.
        """
        self._run, self._grid, self._most, self._observe = run, grid, most, observe
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Examples that no batch has taken."""
        return len(self._waiting)

    def submit(self, examples: Any) -> Future[Outputs]:
        """Puts the examples of a request into the queue.

        Args:
          examples: at least one; their `lengths` are known.

        Returns:
          The outputs of each. Who cancels it takes back what no batch has taken.

        Raises:
          QueueFullError: as many are waiting as may.
          ClosedError: `close` was called.
        """
        lengths = examples.lengths.tolist()
        ticket = _Ticket(examples, [None] * len(lengths), Future())
        with self._changed:
            if self._closed:
                raise ClosedError
            if len(self._waiting) + len(lengths) > self._most:
                raise QueueFullError
            self._waiting += (_Waiting(ticket, i, length) for i, length in enumerate(lengths))
            self._changed.notify()
        ticket.future.add_done_callback(lambda future: future.cancelled() and self._drop(ticket))
        return ticket.future

    def close(self, seconds: float) -> bool:
        """Takes nothing more, and waits for what is in the queue.

        Args:
          seconds: to wait at most.

        Returns:
          Whether all is done.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _drop(self, ticket: _Ticket) -> None:
        """Nobody waits for these examples any more."""
        with self._changed:
            self._waiting = deque(item for item in self._waiting if item.ticket is not ticket)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                items, filled = self._take()
            self._observe(len(items))
            try:
                outputs = self._run([(item.ticket.examples, item.i) for item in items], filled)
            except Exception as error:  # the requests of this batch fail, and no other
                for item in items:
                    _fail(item.ticket, error)
                continue
            for item, output in zip(items, outputs, strict=True):
                _deliver(item, output)

    def _take(self) -> tuple[list[_Waiting], Filled]:
        """The next batch, out of the queue: its examples, and where each of these lies."""
        waiting = list(self._waiting)
        shape, rows = fill([item.length for item in waiting], self._grid)
        chosen = sorted(place for row in rows for place in row)
        number = {place: i for i, place in enumerate(chosen)}
        self._waiting = deque(item for i, item in enumerate(waiting) if i not in number)
        placed = tuple(tuple(number[place] for place in row) for row in rows)
        return [waiting[place] for place in chosen], Filled(shape, placed)


def _deliver(item: _Waiting, output: np.ndarray) -> None:
    """The outputs of an example; the last one of a request answers it."""
    ticket = item.ticket
    if not np.isfinite(output).all():
        _fail(ticket, NotFiniteError())
        return
    ticket.outputs[item.i] = output
    done = [output for output in ticket.outputs if output is not None]
    if len(done) == len(ticket.outputs) and ticket.future.set_running_or_notify_cancel():
        ticket.future.set_result(done)


def _fail(ticket: _Ticket, error: Exception) -> None:
    if not ticket.future.done() and ticket.future.set_running_or_notify_cancel():
        ticket.future.set_exception(error)
