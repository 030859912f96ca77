"""A step compiled once for each batch shape."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import jax


class Compiled:
    """Calls a pure step through programs compiled ahead, one for each shape of the batch.

    Attributes:
      jitted: the step as `transform` gives it.
      seconds: spent in tracing and compiling so far, in whatever thread.
      waited: those of them that a call took longer for.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        donate_argnums: tuple[int, ...] = (),
        transform: Callable[..., Any] = jax.jit,
        compiler_options: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is compiled yet.

        Args:
          step: its last argument is the batch.
          donate_argnums: arguments whose memory the outputs may take.
          transform: `jax.jit`, with options of its own bound, or `jax.pmap`.
          compiler_options: XLA's, by name.
        """
        self.jitted = transform(step, donate_argnums=donate_argnums)
        self._options = None if compiler_options is None else dict(compiler_options)
        self._programs: dict[tuple[Any, ...], Future[Any]] = {}
        self._lock = threading.Lock()  # of the dict: who enters a program compiles it
        self._closed = threading.Event()
        self.seconds = self.waited = 0.0

    def __call__(self, *args: Any) -> Any:
        """Runs the step; compiles first if the batch has a new shape."""
        return self.program(*args)(*args)

    def program(self, *args: Any) -> Any:
        """The `jax.stages.Compiled` for the shape of the batch, with its costs and its memory."""
        found = self._programs.get(_shapes(args[-1]))
        if found is not None and found.done():
            return found.result()
        start = time.perf_counter()
        program = self._compile(*args).result()
        self.waited += time.perf_counter() - start
        return program

    def ahead(self, batches: Iterable[Mapping[str, Any]], *args: Any, threads: int = 1) -> None:
        """Compiles for the shapes of some batches in background threads.

        Args:
          batches: whose shapes are to come; read in those threads, one at a time.
          *args: the other arguments; of these too, only the shapes are read, and none is kept.
          threads: programs that are compiled side by side.
        """
        shapes = jax.eval_shape(lambda *trees: trees, *args)
        rest, reading = iter(batches), threading.Lock()

        def compile_all() -> None:
            while True:
                with reading:
                    batch = next(rest, None)
                if batch is None or self._closed.is_set():
                    return
                self._compile(*shapes, batch)

        for _ in range(threads):
            threading.Thread(target=compile_all, name="compiling").start()

    def close(self) -> None:
        """Nothing more is compiled in the background, once what is being compiled is done."""
        self._closed.set()

    def _compile(self, *args: Any) -> Future[Any]:
        """The program, which this thread compiles where no other has begun to."""
        key = _shapes(args[-1])
        with self._lock:
            found = self._programs.get(key)
            if found is not None:
                return found
            own = self._programs[key] = Future()
        start = time.perf_counter()
        try:
            own.set_result(self.jitted.lower(*args).compile(self._options))
        except BaseException as error:
            with self._lock:
                del self._programs[key]  # whoever asks next meets the error by himself
            own.set_exception(error)
        with self._lock:
            self.seconds += time.perf_counter() - start
        return own

    def knows(self, batch: Mapping[str, Any]) -> bool:
        """Whether the program for this batch's shape is compiled."""
        found = self._programs.get(_shapes(batch))
        return found is not None and found.done()

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes compiled so far: [b, t] of texts, [b, h, w, c] of images."""
        return sorted(_main({name: shape for name, shape, _ in key}) for key in [*self._programs])


def main_shape(batch: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of what a batch is chiefly made of."""
    return _main({name: x.shape for name, x in batch.items()})


def _main(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    for name in ("input_ids", "pixel_values"):
        if name in shapes:
            return shapes[name]
    return max((shape for _, shape in sorted(shapes.items())), key=len)


def _shapes(batch: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a program depends on: the name, shape and dtype of every array."""
    return tuple((name, x.shape, str(x.dtype)) for name, x in sorted(batch.items()))
