"""What a disk refuses, in one message: full, over a quota, read-only, not permitted."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from jaxtune.core.errors import UserError

_SHORT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORDS = {os.strerror(code).lower(): code for code in (*_SHORT, errno.EROFS)}


@contextlib.contextmanager
def explained(
    what: Path | str, remedy: str = "Expected a place that can be written to"
) -> Iterator[None]:
    """Turns what the system says of a write that fails into one message.

    Args:
      what: is written, in place or under another name beside it.
      remedy: what to do where the disk is not full, nor the file too large.

    Raises:
      UserError: the write failed; names what, the cause and what to do.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries wrap what the system said in errors of their own
        code = cause_of(error)
        if code is None:
            raise
        if code in _SHORT:
            remedy = "Free space there, or raise the limit, and start the same command again"
        message = f"{what} cannot be written to: {os.strerror(code)}. {remedy}."
        raise UserError(message) from None


def cause_of(error: BaseException | None) -> int | None:
    """The number of the system's error behind `error`, whoever wrapped it; None for none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        text = str(error).lower()
        for words, code in _WORDS.items():
            if words in text:
                return code
        error = error.__cause__ or error.__context__
    return None
