"""A text file, decoded: every fault names the file, the line and the remedy."""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import OnBadRow
from jaxtune.data.sources.reading import TRAINING, Reading
from jaxtune.io.regular_files import file_size

_BLOCK = 1 << 20  # characters that are looked at at a time
_OF_THE_ENCODING = re.compile("[^\x00-\x7f\udc80-\udcff]")  # beyond ASCII


def lines_of(text: str) -> list[str]:
    r"""The lines of a text, ended by `\n`, `\r\n` or `\r`; blank ones at the end are ignored."""
    text = unify_line_ends(text).rstrip("\n")
    return text.split("\n") if text else []


def read_text(reading: Reading) -> str:
    """The whole file, decoded, without a byte order mark; line ends are as they are.

    Where bad rows do not stop, bytes that are not of the encoding become halves of surrogate pairs,
    as Python's `surrogateescape` has it, which `bad_rows.sound_texts` finds in their rows. Where
    they are kept, at least one character beyond ASCII must be of the encoding.

    Raises:
      UserError: the file cannot be read or decoded; the message has file, line and remedy.
    """
    path, encoding = reading.path, reading.settings.encoding
    data = read_bytes(path).removeprefix(codecs.BOM_UTF8)
    try:
        text = _decode(data, encoding, reading.on_bad_row)
    except LookupError as error:
        raise UserError(
            f"{path}: found {reading.says.encoding} {encoding!r}, but expected a text encoding that"
            " Python knows, such as utf-8, latin-1 or cp1252."
        ) from error
    except UnicodeDecodeError as error:
        line = _line_at_end(data[: error.start].decode(encoding, "replace"))
        raise UserError(
            f"{path} line {line}: found the byte 0x{data[error.start]:02x}, but expected text in "
            f"{encoding} ({error.reason}). Set {reading.says.encoding} to the file's own encoding, "
            "e.g. latin-1."
        ) from error
    except (UnicodeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: cannot be decoded as {encoding} ({error}). Set {reading.says.encoding} to the"
            " file's own encoding, e.g. utf-8."
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        raise UserError(
            f"{path} line {_line_at_end(text[:nul])}: found a NUL character, but expected text. "
            f"Take it out, or set {reading.says.encoding} if the file is in another encoding, "
            "e.g. utf-16."
        )
    return text


def read_bytes(path: str) -> bytes:
    """The content of a regular file.

    Raises:
      UserError: it cannot be read, is no regular file, or is larger than the memory that is left.
    """
    try:
        file_size(path)
        return Path(path).expanduser().read_bytes()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it does not fit into memory"
        raise UserError(
            f"{path}: cannot be read ({reason}), but expected a data file. Check the path."
        ) from error


def check_sizes(lines: Iterable[str], reading: Reading) -> Iterator[tuple[int, str | UserError]]:
    """The lines with their 1-based numbers, and a fault in the place of those that are too long."""
    limit = reading.settings.max_row_characters
    for number, line in enumerate(lines, start=1):
        yield number, line if len(line) <= limit else long_line(reading, number, line)


def long_line(reading: Reading, number: int, line: str) -> UserError:
    """The fault of a line with more characters than may be."""
    remedy = " Set that to more, or correct the file." if reading.says is TRAINING else ""
    return UserError(
        f"{reading.path} line {number}: found {len(line)} characters, but expected at most"
        f" {reading.settings.max_row_characters}, config.data.max_row_characters.{remedy}"
    )


def is_encodable(text: str) -> bool:
    """Whether there is no half of a surrogate pair in it."""
    if text.isascii():
        return True
    try:
        for start in range(0, len(text), _BLOCK):  # a copy of all would be as large again
            text[start : start + _BLOCK].encode()
    except UnicodeEncodeError:
        return False
    return True


def unify_line_ends(text: str) -> str:
    r"""Makes every line end `\n`. (`str.splitlines` would also split at U+2028 and others.)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def first_line(text: str) -> str:
    """The first line of a text that is not blank."""
    return next((line for line in _few_lines(text) if line.strip()), "")


def _few_lines(text: str) -> Sequence[str]:
    return unify_line_ends(text.lstrip("\r\n")[: 2**16]).split("\n", 1)


def _decode(data: bytes, encoding: str, on_bad_row: OnBadRow) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if on_bad_row == "stop":
            raise
        text = data.decode(encoding, "surrogateescape")
        if on_bad_row == "keep" and not _OF_THE_ENCODING.search(text):
            raise  # the whole file is in another encoding
    return text.removeprefix("\ufeff")


def _line_at_end(text: str) -> int:
    """The 1-based number of the line that `text` ends in."""
    return unify_line_ends(text).count("\n") + 1
