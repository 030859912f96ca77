"""Images that were decoded once: a file of the same place, size and time is not read again."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from jaxtyping import Bool, Int, UInt8, UInt64

from jaxtune.data.images.decode import Source, check_each, refuse_bad
from jaxtune.io import array_cache
from jaxtune.io.json_files import sha256_of

_FORMAT = "1"
_KEY, _DIGEST = 16, 32  # bytes


class _Known(NamedTuple):
    """What was found out of n images, sorted by the first half of their keys.

    Attributes:
      keys: both halves of the digest of what each image was known by, one after the other.
      digests: the SHA-256 of their bytes, one after the other.
    """

    keys: UInt64[np.ndarray, " 2*n"]
    digests: UInt8[np.ndarray, " 32*n"]


class Digests:
    """The digests of sound images, kept in a folder."""

    def __init__(self, folder: Path) -> None:
        """Reads nothing yet.

        Args:
          folder: of answers of `io.array_cache`.
        """
        text = f"images {_FORMAT} {PIL.__version__}"  # another Pillow may read other files
        self._folder, self._name = folder, hashlib.sha256(text.encode()).hexdigest()
        self._known: _Known | None = None

    def check_all(self, sources: Sequence[Source]) -> list[bytes]:
        """As `decode.check_all`, which is asked of the images that are not known yet."""
        if self._known is None:
            self._known = _load(self._folder, self._name)
        keys = np.frombuffer(b"".join(map(_key, sources)), np.uint64).reshape(-1, 2)
        places, is_known = _find(self._known, keys)
        digests = np.zeros((len(sources), _DIGEST), np.uint8)
        digests[is_known] = self._known.digests.reshape(-1, _DIGEST)[places[is_known]]
        new = np.flatnonzero(~is_known)
        if len(new):
            found = check_each([sources[i] for i in new.tolist()])
            sound = np.array([isinstance(digest, bytes) for digest in found], bool)
            good = b"".join(digest for digest in found if isinstance(digest, bytes))
            digests[new[sound]] = np.frombuffer(good, np.uint8).reshape(-1, _DIGEST)
            self._learn(keys[new[sound]], digests[new[sound]])
            refuse_bad({int(new[i]): text for i, text in enumerate(found)})
        whole = digests.tobytes()
        return [whole[i : i + _DIGEST] for i in range(0, len(whole), _DIGEST)]

    def of_files(self, files: Sequence[Path]) -> str:
        """The SHA-256 of the bytes of all files, one after the other, as `sha256_of` has it."""
        states = hashlib.sha256(self._name.encode())
        for file in files:
            states.update(repr(_state(str(file))).encode("utf-8", "surrogatepass"))
        found = array_cache.load(self._folder, states.hexdigest())
        with contextlib.suppress(KeyError, TypeError):
            if found is not None:
                return str(found[1]["sha256"])
        digest = sha256_of(files)
        with (
            contextlib.suppress(OSError),
            array_cache.keep(self._folder, states.hexdigest(), {"sha256": digest}),
        ):
            pass
        return digest

    def _learn(self, keys: UInt64[np.ndarray, "m 2"], digests: UInt8[np.ndarray, "m 32"]) -> None:
        """Adds images to those that are known, here and in the folder, if it can be written."""
        assert self._known is not None
        keys = np.concatenate([self._known.keys.reshape(-1, 2), keys])
        digests = np.concatenate([self._known.digests.reshape(-1, _DIGEST), digests])
        order = np.argsort(keys[:, 0], kind="stable")
        self._known = _Known(keys[order].ravel(), digests[order].ravel())
        with (
            contextlib.suppress(OSError),
            array_cache.keep(self._folder, self._name, {}) as append,
        ):
            append(self._known._asdict())


def _load(folder: Path, name: str) -> _Known:
    """What the folder has; nothing where it is damaged."""
    found = array_cache.load(folder, name)
    with contextlib.suppress(KeyError, TypeError):
        known = _Known(**found[0]) if found else None
        if known and known.keys.nbytes * _DIGEST == known.digests.nbytes * _KEY:
            return known
    return _Known(np.zeros(0, np.uint64), np.zeros(0, np.uint8))


def _find(
    known: _Known, keys: UInt64[np.ndarray, "m 2"]
) -> tuple[Int[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Where each key stands among those that are known, and whether it does."""
    own = known.keys.reshape(-1, 2)
    if not len(own):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    # Two images whose first halves are equal are looked at anew, if there ever are any.
    places = np.minimum(np.searchsorted(own[:, 0], keys[:, 0]), len(own) - 1)
    return places, (own[places] == keys).all(axis=1)


def _key(source: Source) -> bytes:
    """What an image is known by: place, size and time of its file, or its bytes; and the limit."""
    own = _state(source.name) if source.data is None else hashlib.sha256(source.data).hexdigest()
    text = repr((source.max_pixels, own))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY).digest()


def _state(name: str) -> tuple[object, ...]:
    """Place, size and time of a file."""
    path = os.path.abspath(os.path.expanduser(name))
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # it is refused when it is read
        return (path,)
    return (path, found.st_size, found.st_mtime_ns)
