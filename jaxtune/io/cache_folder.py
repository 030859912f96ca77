"""Folders that keep work from one run to the next, for one user alone."""

import os
import stat
from pathlib import Path

from jaxtune.core.errors import UserError


def private_folder(name: str) -> Path:
    """The folder `jaxtune/NAME` of the user's caches, made if absent.

    What is read from it is trusted, and a compiled program is run. So it must belong to the user,
    and nobody else may write to it.

    Args:
      name: without a slash.

    Returns:
      Under `$XDG_CACHE_HOME`, or under `~/.cache` where that is not set.

    Raises:
      UserError: it cannot be made or written to, or others could.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache"))
    try:
        caches.mkdir(parents=True, exist_ok=True)
        for folder in (caches / "jaxtune", caches / "jaxtune" / name):
            folder.mkdir(mode=0o700, exist_ok=True)
            _check(folder)
    except OSError as error:
        raise UserError(f"{caches / 'jaxtune' / name} cannot be made: {error.strerror}.") from None
    return caches / "jaxtune" / name


def _check(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UserError(f"{folder} is a link or a file: expected a folder. Remove it.")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise UserError(f"{folder} belongs to another user. Set XDG_CACHE_HOME to your own folder.")
    if os.name == "posix" and found.st_mode & 0o022:
        raise UserError(f"{folder} can be written to by others. Remove it, or chmod 700 it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written to.")
