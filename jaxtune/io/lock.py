"""One process at a time: a locked file that says who holds it."""

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jaxtune.core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def held(file: Path, what: str) -> Iterator[None]:
    """Holds the lock `file`, which is made for it and removed after.

    The system frees it when its process ends, however that ends.

    Args:
      file: of the lock; its folder exists.
      what: is locked, and how to use another, for the message: two ends of a sentence.

    Raises:
      UserError: another process holds it; says which, where and since when.
    """
    stream = _locked(file, what)
    try:
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        stream.truncate(0)
        stream.write(json.dumps(holder) + "\n")
        stream.flush()
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # still locked, so that nobody else's is removed
        stream.close()


def _locked(file: Path, what: str) -> IO[str]:
    """The file, open and locked."""
    while True:
        stream = file.open("a+", encoding="utf-8")
        try:
            if fcntl is not None:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read(500)
            stream.close()
            raise UserError(
                f"{what} is in use by {_told(holder)}. Wait for it, or end it."
            ) from None
        except OSError:
            return stream  # a file system without locks
        with contextlib.suppress(FileNotFoundError):  # whoever held it has just removed it
            if os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                return stream
        stream.close()


def _told(holder: str) -> str:
    try:
        found = json.loads(holder)
        return f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (ValueError, TypeError, LookupError):
        return "another process"
