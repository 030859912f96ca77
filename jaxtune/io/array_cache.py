"""Arrays kept on disk from one run to the next: written in pieces, read by mapping them.

An answer is a folder of its own: one file of raw values for each array, and `index.json`, which
says their dtypes, sizes and checksums. It appears whole, and is verified each time that it is read.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object

Arrays = Mapping[str, np.ndarray]
"""By name; of one dimension each."""

Append = Callable[[Arrays], None]
"""Takes the next values of some arrays."""

T = TypeVar("T")

_INDEX = "index.json"
_PLAIN = "biuf"  # kinds of dtypes: booleans and numbers
_CHECKED = 1 << 24  # bytes that are summed up at a time
_LEFT = 24 * 3600  # seconds, after which what is half written is a killed run's


def once(
    folder: Path,
    key: str,
    read: Callable[[dict[str, np.ndarray], dict[str, Any]], T | None],
    fill: Callable[[Append, dict[str, Any]], None],
    make: Callable[[], T],
) -> T:
    """What is kept under a key, or is made and kept; where nothing can be kept, just made.

    Args:
      folder: of answers.
      key: of one.
      read: (arrays, notes) -> what they say; None, or a KeyError, TypeError or ValueError, where
        they are not what was kept.
      fill: hands its values to an `Append`, piece by piece, and puts its notes into a dict.
      make: the same, in memory.
    """

    def kept() -> T | None:
        found = load(folder, key)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return None if found is None else read(*found)
        return None

    answer = kept()
    if answer is None:
        notes: dict[str, Any] = {}
        try:
            with keep(folder, key, notes) as append:
                fill(append, notes)
        except OSError:  # such as a full disk
            return make()
        answer = kept()
    return make() if answer is None else answer


def load(folder: Path, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """An answer: its arrays, which take no memory that the system cannot take back, and its notes.

    Args:
      folder: of answers.
      key: of one.

    Returns:
      (arrays by name, read-only; notes); None where it is absent or damaged.
    """
    own = folder / key
    try:
        index = read_json_object(own / _INDEX)
        arrays = {
            name: _map(own / f"{name}.bin", np.dtype(dtype), size, checksum)
            for name, (dtype, size, checksum) in index["arrays"].items()
        }
        os.utime(own)  # it was used
        return arrays, dict(index["notes"])
    # Damage leads to whatever it leads to.
    except (OSError, UserError, ValueError, TypeError, KeyError, AttributeError):
        return None


@contextlib.contextmanager
def keep(folder: Path, key: str, notes: dict[str, Any]) -> Iterator[Append]:
    """Takes an answer piece by piece; it is there for `load` when the block ends without an error.

    Args:
      folder: of answers; those that were not used for longest go where it takes more than half of
        what is free on its disk.
      key: of the answer.
      notes: plain values; they are read at the end of the block.

    Yields:
      A function that takes the next values of some arrays, each always of one dtype.

    Raises:
      OSError: it cannot be written.
    """
    fresh = Path(tempfile.mkdtemp(dir=folder, prefix=f".{key[:16]}."))
    known: dict[str, list[Any]] = {}
    try:
        with contextlib.ExitStack() as stack:
            files: dict[str, Any] = {}

            def append(arrays: Arrays) -> None:
                for name, values in arrays.items():
                    if name not in files:
                        files[name] = stack.enter_context((fresh / f"{name}.bin").open("wb"))
                        known[name] = [values.dtype.str, 0, 0]
                    data = np.ascontiguousarray(values).data.cast("B") if values.size else b""
                    files[name].write(data)
                    known[name][1] += len(values)
                    known[name][2] = zlib.crc32(data, known[name][2])

            yield append
        text = json.dumps({"arrays": known, "notes": notes})
        (fresh / _INDEX).write_text(text, encoding="utf-8")
        _remove(folder / key)  # damaged, or of another run at the same time
        os.replace(fresh, folder / key)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _trim(folder, key)


def _map(file: Path, dtype: np.dtype, size: int, checksum: int) -> np.ndarray:
    """The values of a file.

    Raises:
      ValueError: they are not those that were written.
    """
    if dtype.kind not in _PLAIN or file.stat().st_size != size * dtype.itemsize:
        raise ValueError
    if not size:
        return np.zeros(0, dtype)
    values = np.memmap(file, dtype, "r", shape=(size,))
    data, found = values.data.cast("B"), 0
    for start in range(0, len(data), _CHECKED):
        found = zlib.crc32(data[start : start + _CHECKED], found)
    if found != checksum:
        raise ValueError
    return values.view(np.ndarray)


def _trim(folder: Path, newest: str) -> None:
    """Removes what was not used for longest, until the rest leaves half of the disk's room free."""
    now, known = time.time(), []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # another run may remove it too
            used = entry.stat().st_mtime
            if entry.name.startswith(".") and now - used < _LEFT:
                continue
            files = entry.iterdir() if entry.is_dir() else [entry]
            known.append((used, sum(file.stat().st_size for file in files), entry))
    total = sum(size for _, size, _ in known)
    most = (total + shutil.disk_usage(folder).free) // 2
    for used, size, entry in sorted(known):
        half_written = entry.name.startswith(".") and now - used >= _LEFT
        if entry.name != newest and (half_written or total > most):
            _remove(entry)
            total -= size


def _remove(entry: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
