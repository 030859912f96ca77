"""Reading what a person names: a JSON object, the digest of files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError


def read_json_object(file: Path, remedy: str = "Correct the file.") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      file: UTF-8.
      remedy: one sentence that ends the message of an error.

    Raises:
      UserError: the file is not UTF-8, not JSON, or not an object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"{file} is not valid JSON: {error}. {remedy}") from None
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
