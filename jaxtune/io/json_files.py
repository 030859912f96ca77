"""Reading what a person names: a JSON object, the digest of files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError

MAX_BYTES = 64 << 20
"""Of a JSON object that is read whole."""


def read_json_object(file: Path, remedy: str = "Correct the file.") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      file: UTF-8.
      remedy: one sentence that ends the message of an error.

    Raises:
      UserError: the file cannot be read, has more than MAX_BYTES, is not UTF-8, not JSON, nested
        too deep, or not an object.
    """
    try:
        if not file.is_file():  # a FIFO would be waited for
            raise UserError(f"{file} is not a regular file. {remedy}")
        if file.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{file} has {file.stat().st_size} bytes, expected at most {MAX_BYTES}. {remedy}"
            )
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}. {remedy}") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"{file} is not valid JSON: {str(error)[:200]}. {remedy}") from None
    except RecursionError:
        raise UserError(f"{file} is nested too deep for JSON of a config. {remedy}") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{file} holds a {type(value).__name__}, expected an object of JSON. {remedy}"
        )
    return value


def sha256_of(files: Iterable[Path]) -> str:
    """The hexadecimal SHA-256 of the files' bytes, one file after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
