"""Tokens of texts, kept on disk from one run to the next by what they were made from."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from jaxtune.data.ragged import offsets_of
from jaxtune.data.text.token_parts import parts
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokens import Tokens, no_types, tokenize, types_of
from jaxtune.io import array_cache

_FORMAT = "4"
_HASHED = 2000  # rows that are hashed at a time


def tokenize_once(
    folder: Path,
    tokenizer: FileTokenizer,
    rows: Sequence[tuple[str, ...]],
    max_length: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[Tokens, int]:
    """As `tokens.tokenize`, which is asked where `folder` has not the answer already.

    The tokens go to the disk as they come and are mapped from there, so that they take no memory
    that the system cannot take back.

    Args:
      folder: holds a folder for each answer. A damaged one is made again; where none can be
        written, the tokens are held in memory.
      tokenizer: of the model's folder.
      rows: one or two texts each.
      max_length: tokens, special ones included.
      track: shows progress.
    """

    def fill(append: array_cache.Append, notes: dict[str, Any]) -> None:
        notes |= {"num_cut": 0, "pad_token_id": tokenizer.pad_token_id}
        plain, typed = 0, False  # tokens so far, and whether any of a type other than 0
        for part in parts(tokenizer, rows, max_length, track):
            if part.token_type_ids is not None and not typed:
                append({"token_type_ids": np.zeros(plain, np.uint8)})
                typed = True
            append({"input_ids": part.input_ids, "lengths": part.lengths.astype(np.int32)})
            if typed:
                append({"token_type_ids": types_of(part)})
            plain += len(part.input_ids)
            notes["num_cut"] += part.num_cut

    return array_cache.once(
        folder,
        _digest(tokenizer, rows, max_length),
        read=partial(_read, len(rows)),
        fill=fill,
        make=partial(tokenize, tokenizer, rows, max_length, track),
    )


def _digest(tokenizer: FileTokenizer, rows: Sequence[tuple[str, ...]], max_length: int) -> str:
    """Of all that the tokens follow from."""
    library = version("tokenizers")
    head = [_FORMAT, library, tokenizer.digest, max_length, len(rows), len(rows[0])]
    digest = hashlib.sha256(json.dumps(head).encode())
    for start in range(0, len(rows), _HASHED):
        chunk = [rows[i] for i in range(start, min(start + _HASHED, len(rows)))]
        texts = [text.encode("utf-8", "surrogatepass") for row in chunk for text in row]
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        digest.update(sizes.astype("<i8").tobytes())  # so that no two lists read the same
        digest.update(b"".join(texts))
    return digest.hexdigest()


def _read(
    num_rows: int, arrays: dict[str, np.ndarray], notes: dict[str, Any]
) -> tuple[Tokens, int] | None:
    """An answer; None where it is damaged."""
    ids, lengths = arrays["input_ids"], arrays["lengths"]
    types = arrays["token_type_ids"] if "token_type_ids" in arrays else no_types(len(ids))
    if len(lengths) != num_rows or len(ids) != len(types) or len(ids) != lengths.sum():
        return None
    tokens = Tokens(ids, types, offsets_of(lengths), int(notes["pad_token_id"]))
    return tokens, int(notes["num_cut"])
