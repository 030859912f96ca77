"""Writing files so that a reader never sees half of one, and a power cut never loses both."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxtune.io.disk import explained


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name beside `path`, then renames it into place.

    Where `path` is a link, what it leads to is replaced.

    Raises:
      UserError: it cannot be written; what was there is as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with explained(path):
        path = _target(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o666 & ~_umask())
            put_in_place(Path(name), path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fills a temporary folder beside `folder`, then puts it in its place.

    Where `folder` is a link, what it leads to is replaced.

    Raises:
      UserError: it cannot be written; what was there is as it was.
    """
    with explained(folder):
        folder = _target(folder)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            os.chmod(fresh, 0o777 & ~_umask())
            fill(fresh)
            for path in [*fresh.rglob("*"), fresh]:
                sync(path)
            old = folder.with_name(f".{folder.name}{_OLD}")
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                os.replace(folder, old)
            put_in_place(fresh, folder)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def put_in_place(fresh: Path, path: Path) -> None:
    """Renames a file or folder, so that after a power cut the old or the new one is there."""
    os.replace(fresh, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, onto the disk; where folders cannot, not them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, *names: str) -> None:
    """Removes what killed processes left of writing files or folders of these names.

    A folder that was moved away and not yet replaced comes back. Nobody else may be writing there.
    """
    for name in names:
        path = _target(folder / name)
        old = path.with_name(f".{name}{_OLD}")
        if old.exists() and not path.exists():
            os.replace(old, path)
        for left in _beside(path):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _beside(path: Path) -> Iterator[Path]:
    """The temporary files and folders of `path`."""
    if path.parent.is_dir():
        yield from [p for p in path.parent.iterdir() if p.name.startswith(f".{path.name}.")]


def _target(path: Path) -> Path:
    """Where a link leads, or the path itself; its folder is made if absent."""
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_OLD = ".old"
