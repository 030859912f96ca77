"""Memory that is free, but that the C library keeps for its process."""

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any


def trim() -> None:
    """Gives free memory back to the system, where the C library is glibc; takes milliseconds.

    glibc keeps what it has given back to it below the top of a heap: arrays of up to 32 MiB, and
    what the compiler needed. A step that asks for one large block can use none of it.
    """
    _trimmer()(0)


@functools.cache
def _trimmer() -> Callable[[int], Any]:
    if platform.libc_ver()[0] != "glibc":
        return lambda pad: None
    return ctypes.CDLL(None).malloc_trim
