"""Tokens of texts, kept on disk from one run to the next by what they were made from."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokens import Tokens, tokenize
from jaxtune.io.atomic import write_atomic

MAX_BYTES = 2 << 30  # of all files; the ones not used for longest are removed
_FORMAT = "3"
_ARRAYS = ("input_ids", "token_type_ids", "offsets", "cut", "pad_token_id")


def tokenize_once(
    folder: Path,
    tokenizer: FileTokenizer,
    rows: Sequence[tuple[str, ...]],
    max_length: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[Tokens, int]:
    """As `tokens.tokenize`, which is asked where `folder` has not the answer already.

    Args:
      folder: holds a file for each answer. A damaged one is made again; one that cannot be written
        is left out.
      tokenizer: of the model's folder.
      rows: one or two texts each.
      max_length: tokens, special ones included.
      track: shows progress.
    """
    file = folder / f"{_digest(tokenizer, rows, max_length)}.npz"
    kept = _read(file, len(rows))
    if kept is not None:
        return kept
    tokens, cut = tokenize(tokenizer, rows, max_length, track)
    _write(file, tokens, cut)
    return tokens, cut


def _digest(tokenizer: FileTokenizer, rows: Sequence[tuple[str, ...]], max_length: int) -> str:
    """Of all that the tokens follow from."""
    library = version("tokenizers")
    head = [_FORMAT, library, tokenizer.digest, max_length, len(rows), len(rows[0])]
    digest = hashlib.sha256(json.dumps(head).encode())
    for row in rows:
        for text in row:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(data) + data)  # so that no two lists read the same
    return digest.hexdigest()


def _read(file: Path, num_rows: int) -> tuple[Tokens, int] | None:
    """What `file` holds; None where it is absent or damaged."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            ids, types, offsets, cut, pad = (arrays[name] for name in _ARRAYS)
        os.utime(file)  # it was used
    except Exception:  # zipfile and numpy raise whatever the damage leads to
        return None
    good = (
        ids.dtype == types.dtype == np.int32
        and offsets.dtype == np.int64
        and offsets.shape == (num_rows + 1,)
        and ids.shape == types.shape == (offsets[-1],)
        and cut.shape == pad.shape == ()
    )
    if not good:
        return None
    return Tokens(ids, types, offsets, int(pad)), int(cut)


def _write(file: Path, tokens: Tokens, cut: int) -> None:
    *arrays, pad_token_id = tokens
    values = (*arrays, np.int64(cut), np.int64(pad_token_id))
    stream = io.BytesIO()
    np.savez(stream, **dict(zip(_ARRAYS, values, strict=True)))
    content = stream.getvalue()
    if len(content) > MAX_BYTES:
        return
    # Such as a full disk; another run may remove files too.
    with contextlib.suppress(OSError, UserError):
        write_atomic(file, content)
        _trim(file.parent, MAX_BYTES)


def _trim(folder: Path, most: int) -> None:
    """Removes the files that were not used for longest, until the rest has at most `most` bytes."""
    found = [(file.stat().st_mtime_ns, file.stat().st_size, file) for file in folder.glob("*.npz")]
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most:
            return
        file.unlink(missing_ok=True)
        total -= size
