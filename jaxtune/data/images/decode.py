"""The bytes of an image to upright RGB, by Pillow; every fault names the file."""

import hashlib
import io
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from jaxtune.core.errors import UserError

WORKERS = min(16, os.cpu_count() or 1)
"""Threads that decode; Pillow computes outside Python's lock."""

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class Source(NamedTuple):
    """Where an image is.

    Attributes:
      name: what a person calls it: the path of its file, or its place in a table.
      place: for messages: the same, or the line of a list that names the file.
      data: the encoded bytes; None reads the file `name`.
    """

    name: str
    place: str
    data: bytes | None = None


def decode(source: Source) -> Image.Image:
    """The image as a person sees it: turned as its EXIF says, in RGB, of 8 bits.

    Transparent parts are laid on white, as transformers does; 16 bits are scaled to 8. Of several
    frames the first is taken.

    Raises:
      UserError: no such file, or one that is no image, broken, cut short, or of 32 bits.
    """
    return _decode(source, _read(source))


def check_all(sources: Sequence[Source]) -> list[str]:
    """Decodes every image once, with a progress bar on a terminal, and keeps none of them.

    Returns:
      The SHA-256 of the bytes of each, by which duplicates are known.

    Raises:
      UserError: names the first image that `decode` refuses.
    """
    from rich.progress import track

    def check(source: Source) -> str:
        data = _read(source)
        _decode(source, data)
        return hashlib.sha256(data).hexdigest()

    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(check, sources)
        total, quiet = len(sources), not sys.stdout.isatty()
        return list(track(found, "checking images", total, transient=True, disable=quiet))


def _read(source: Source) -> bytes:
    if source.data is not None:
        return source.data
    try:
        with open(os.path.expanduser(source.name), "rb") as stream:
            return stream.read()
    except OSError as error:
        raise UserError(
            f"{source.place}: cannot be read ({error.strerror}), but expected an image. Check the"
            " path."
        ) from error


def _decode(source: Source, data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    # Pillow's parsers raise whatever they trip over, and the person's remedy is the same.
    except Exception as error:
        reason = " ".join(str(error).split()).replace(" <_io.BytesIO object at ", " <")
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"no format that Pillow knows; {len(data)} bytes"
        raise UserError(
            f"{source.place}: found a broken file ({reason}), but expected an image such as JPEG or"
            " PNG. Replace or remove it."
        ) from error


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
