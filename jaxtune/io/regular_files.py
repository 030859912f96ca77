"""Only regular files are read: a FIFO or a device in the place of one may never end."""

import os
import stat

from jaxtune.core.errors import UserError


def file_size(path: str) -> int:
    """The bytes of a regular file; links are followed.

    Args:
      path: `~` is expanded.

    Raises:
      UserError: a folder, a FIFO, a socket or a device.
      OSError: there is no such file, or it may not be seen.
    """
    try:
        found = os.stat(os.path.expanduser(path))
    except ValueError as error:  # a zero byte, or half of a surrogate pair
        raise UserError(f"{path!r} can be no path: {error}.") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a FIFO, a socket or a device"
        raise UserError(f"{path} is {kind}, but expected a file. Check the path.")
    return found.st_size
