"""A step compiled once for each batch shape, and kept on disk for the runs after this one."""

import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxtune.core.errors import UserError
from jaxtune.io.cache_folder import private_folder

_MAX_BYTES = 2 << 30  # of all programs kept; the ones not used for longest are removed


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


def keep_programs(say: Callable[[str], Any]) -> None:
    """Lets JAX keep compiled programs in `programs-CPU` of the user's caches, for the next run.

    The environment's JAX_COMPILATION_CACHE_DIR has its own way, empty too, which keeps nothing.
    This is for commands: it changes JAX's settings for the whole process, and must come before
    anything is compiled.

    Args:
      say: takes one line where nothing can be kept, and why.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = private_folder(f"programs-{_cpu_digest()}")
    except UserError as error:
        say(f"compiled programs are not kept for the next run: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    # A run has some hundred small programs besides its steps; reading one takes a millisecond.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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


_CPU_FIELDS = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "isa"),
)
"""What /proc/cpuinfo says of a processor's kind."""


def _cpu_digest() -> str:
    """Names this kind of CPU: a home may be shared by machines that run other instructions."""
    words = [platform.system(), platform.machine(), platform.processor()]
    info = Path("/proc/cpuinfo")
    if info.exists():
        first = info.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        words += [line for line in first.splitlines() if line.split("\t")[0] in _CPU_FIELDS]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
