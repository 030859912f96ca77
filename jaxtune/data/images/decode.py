"""The bytes of an image to upright RGB, by Pillow; every fault names the file."""

import hashlib
import io
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import BadRowsError
from jaxtune.io.regular_files import file_size
from jaxtune.settings.data import FileSettings

MAX_PIXELS = FileSettings().max_image_pixels

WORKERS = min(16, os.cpu_count() or 1)
"""Threads that decode; Pillow computes outside Python's lock."""

_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF"),
    "WEBP",
)
"""Others are refused: for some of them Pillow starts a program, such as Ghostscript."""

_BYTES_A_PIXEL = 16  # a file has fewer

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class Source(NamedTuple):
    """Where an image is.

    Attributes:
      name: what a person calls it: the path of its file, or its place in a table.
      place: for messages: the same, or the line of a list that names the file.
      data: the encoded bytes; None reads the file `name`.
      max_pixels: width times height that it may have.
    """

    name: str
    place: str
    data: bytes | None = None
    max_pixels: int = MAX_PIXELS


class _Gate:
    """Lets threads in as long as the pixels of all images within are not too many."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0

    @contextmanager
    def hold(self, pixels: int, limit: int) -> Iterator[None]:
        """Waits until the pixels fit; more than all that may be fit where nobody else is."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0 or self._inside + pixels <= limit)
            self._inside += pixels
        try:
            yield
        finally:
            with self._changed:
                self._inside -= pixels
                self._changed.notify_all()


_GATE = _Gate()
"""Of the process, as its memory is."""


def is_image(path: str) -> bool:
    """Whether a file begins like an image of a format that is read."""
    try:
        file_size(path)
        with Image.open(os.path.expanduser(path), formats=_formats()):
            return True
    except Exception:  # as in `_decode`
        return False


def decode(source: Source) -> Image.Image:
    """The image as a person sees it: turned as its EXIF says, in RGB, of 8 bits.

    Transparent parts are laid on white, as transformers does; 16 bits are scaled to 8. Of several
    frames the first is taken.

    Raises:
      UserError: no such file, or one that is no image, broken, cut short, or of 32 bits.
    """
    return _decode(source, _read(source))


def check_all(sources: Sequence[Source]) -> list[bytes]:
    """Decodes every image once, with a progress bar on a terminal, and keeps none of them.

    Returns:
      The SHA-256 of the bytes of each, by which duplicates are known.

    Raises:
      BadRowsError: those that `decode` refuses.
    """
    found = check_each(sources)
    refuse_bad(dict(enumerate(found)))
    return [digest for digest in found if isinstance(digest, bytes)]


def check_each(sources: Sequence[Source]) -> list[bytes | UserError]:
    """As `check_all`, with the error in the place of an image that `decode` refuses."""
    from rich.progress import track

    def check(source: Source) -> bytes | UserError:
        try:
            data = _read(source)
            _decode(source, data)
        except UserError as error:
            return error
        return hashlib.sha256(data).digest()

    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(check, sources)
        total, quiet = len(sources), not sys.stdout.isatty()
        return list(track(found, "checking images", total, transient=True, disable=quiet))


def refuse_bad(checked: Mapping[int, bytes | UserError]) -> None:
    """Raises what is wrong with images, by their index.

    Raises:
      BadRowsError: there is an error among them.
    """
    bad = {i: str(error) for i, error in checked.items() if isinstance(error, UserError)}
    if bad:
        raise BadRowsError(bad)


def _read(source: Source) -> bytes:
    if source.data is not None:
        return source.data
    try:
        size = file_size(source.name)
        if size > _BYTES_A_PIXEL * source.max_pixels:
            raise _too_large(source, f"a file of {size} bytes")
        with open(os.path.expanduser(source.name), "rb") as stream:
            return stream.read()
    except OSError as error:
        raise UserError(
            f"{source.place}: cannot be read ({error.strerror}), but expected an image. Check the"
            " path."
        ) from error


def _decode(source: Source, data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            pixels = image.width * image.height
            if pixels > source.max_pixels:
                raise _too_large(source, f"{image.width} x {image.height} pixels")
            with _GATE.hold(pixels, source.max_pixels):
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except UserError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, twice ours as it is set
        raise _too_large(source, str(error).partition(" exceeds")[0].lower()) from error
    # Pillow's parsers raise whatever they trip over, and the person's remedy is the same.
    except Exception as error:
        reason = " ".join(str(error).split()).replace(" <_io.BytesIO object at ", " <")
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"no format that Pillow knows; {len(data)} bytes"
        raise UserError(
            f"{source.place}: found a broken file ({reason}), but expected an image such as JPEG or"
            " PNG. Replace or remove it."
        ) from error


def _formats() -> list[str]:
    """Those that this Pillow has."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _too_large(source: Source, found: str) -> UserError:
    return UserError(
        f"{source.place}: found {found}, but expected an image of at most {source.max_pixels}"
        " pixels, config.data.max_image_pixels. Make it smaller, or remove it."
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB of 8 bits."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which nothing says what is white")
    if image.mode == "I" or image.mode in _SIXTEEN_BITS:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its pixels have 32 bits, of which nothing says what is white")
        # Pillow's own conversion would make 255 of all that is above it.
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
