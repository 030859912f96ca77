"""Compiled programs kept on disk, for the runs after this one."""

import contextlib
import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxtune.core.errors import UserError
from jaxtune.io.cache_folder import private_folder

_MAX_BYTES = 2 << 30  # of all programs kept; the ones not used for longest are removed


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


@contextlib.contextmanager
def keeping_none() -> Iterator[None]:
    """In it no program is kept, nor one looked for.

    JAX 0.12.0 keeps programs for devices that are not here, and cannot read them back. It asks once
    a process whether to keep any, so it is reset.
    """
    config: Any = jax.config
    was = config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", was)
        compilation_cache.reset_cache()


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
