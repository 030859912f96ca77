"""A step compiled once for each batch shape."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


class Compiled:
    """Calls a pure step through programs compiled ahead, one for each shape of the batch.

    Attributes:
      seconds: spent in tracing and compiling so far.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        donate_argnums: tuple[int, ...] = (),
        transform: Callable[..., Any] = jax.jit,
    ) -> None:
        """Nothing is compiled yet.

        Args:
          step: its last argument is the batch.
          donate_argnums: arguments whose memory the outputs may take.
          transform: `jax.jit`, with options of its own bound, or `jax.pmap`.
        """
        self._jitted = transform(step, donate_argnums=donate_argnums)
        self._programs: dict[tuple[Any, ...], Any] = {}
        self.seconds = 0.0

    def __call__(self, *args: Any) -> Any:
        """Runs the step; compiles first if the batch has a new shape."""
        return self.program(*args)(*args)

    def program(self, *args: Any) -> Any:
        """The `jax.stages.Compiled` for the shape of the batch, with its costs and its memory."""
        key = _shapes(args[-1])
        if key not in self._programs:
            start = time.perf_counter()
            self._programs[key] = self._jitted.lower(*args).compile()
            self.seconds += time.perf_counter() - start
        return self._programs[key]

    def knows(self, batch: Mapping[str, Any]) -> bool:
        """Whether the program for this batch's shape is compiled."""
        return _shapes(batch) in self._programs

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes compiled so far: [b, t] of texts, [b, h, w, c] of images."""
        return sorted(_main({name: shape for name, shape, _ in key}) for key in self._programs)


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
