"""A text file, decoded: every fault names the file, the line and the remedy."""

import codecs
from pathlib import Path

from jaxtune.core.errors import UserError


def read_lines(path: str, encoding: str) -> list[str]:
    r"""The lines of a text file, ended by `\n`, `\r\n` or `\r`; blank ones at the end are ignored.

    Raises:
      UserError: the file cannot be read or decoded; the message has file, line and remedy.
    """
    text = unify_line_ends(read_text(path, encoding)).rstrip("\n")
    return text.split("\n") if text else []


def read_text(path: str, encoding: str) -> str:
    """The whole file, decoded, without a byte order mark; line ends are as they are.

    Raises:
      UserError: the file cannot be read or decoded; the message has file, line and remedy.
    """
    data = read_bytes(path).removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise UserError(
            f"{path}: found config.data.encoding {encoding!r}, but expected a text encoding that "
            "Python knows, such as utf-8, latin-1 or cp1252."
        ) from error
    except UnicodeDecodeError as error:
        line = _line_at_end(data[: error.start].decode(encoding, "replace"))
        raise UserError(
            f"{path} line {line}: found the byte 0x{data[error.start]:02x}, but expected text in "
            f"{encoding} ({error.reason}). Set config.data.encoding to the file's own encoding, "
            "e.g. latin-1."
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        raise UserError(
            f"{path} line {_line_at_end(text[:nul])}: found a NUL character, but expected text. "
            "Take it out, or set config.data.encoding if the file is in another encoding, "
            "e.g. utf-16."
        )
    return text


def read_bytes(path: str) -> bytes:
    """The content of a file.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}), but expected a data file. Check the path."
        ) from error


def unify_line_ends(text: str) -> str:
    r"""Makes every line end `\n`. (`str.splitlines` would also split at U+2028 and others.)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _line_at_end(text: str) -> int:
    """The 1-based number of the line that `text` ends in."""
    return unify_line_ends(text).count("\n") + 1
