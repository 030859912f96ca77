"""From texts to tokens: a model folder's tokenizer, and the tokens of many texts as one array."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from jaxtune.data.text.tokenizer import Cut, FileTokenizer
from jaxtune.data.text.tokenizer_files import load_tokenizer

__all__ = ["Tokens", "join", "load_tokenizer", "tokenize"]

_CHUNK = 2000  # texts tokenized at a time, so that progress can be shown


_Ids = Sequence[int] | Int32[np.ndarray, " t"]


class Tokens(NamedTuple):
    """n sequences of T tokens in all, one after the other: no padding.

    Attributes:
      input_ids: of all tokens.
      token_type_ids: 0 for the first text, 1 for the second.
      offsets: sequence i is the slice offsets[i] : offsets[i + 1].
      pad_token_id: fills rows up.
    """

    input_ids: Int32[np.ndarray, " T"]
    token_type_ids: Int32[np.ndarray, " T"]
    offsets: Int[np.ndarray, " n+1"]
    pad_token_id: int = 0

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each sequence, special ones included."""
        return np.diff(self.offsets)

    def __repr__(self) -> str:
        """Sizes, not contents."""
        return f"Tokens({len(self.offsets) - 1} sequences, {len(self.input_ids)} tokens)"


def tokenize(
    tokenizer: FileTokenizer,
    rows: Sequence[tuple[str, ...]],
    max_length: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[Tokens, int]:
    """Tokenizes texts or pairs of texts, cut to `max_length` tokens.

    Of a pair, the longer text is cut first.

    Args:
      tokenizer: from `load_tokenizer`.
      rows: one or two texts each.
      max_length: tokens, special ones included.
      track: wraps the iteration over chunks, to show progress.

    Returns:
      (tokens, how many texts were cut).
    """
    ids: list[list[int]] = []
    types: list[list[int]] = []
    cut = 0
    for start in track(range(0, len(rows), _CHUNK)):
        chunk = [row[0] if len(row) == 1 else row for row in rows[start : start + _CHUNK]]
        encoded = tokenizer.encode(chunk)
        long = [i for i, tokens in enumerate(encoded) if len(tokens) > max_length]
        again = tokenizer.encode([chunk[i] for i in long], cut=Cut(max_length)) if long else []
        for i, short in zip(long, again, strict=True):
            encoded[i] = short
        cut += len(long)
        ids += [tokens.ids for tokens in encoded]
        types += [tokens.type_ids for tokens in encoded]
    return join(ids, types, tokenizer.pad_token_id), cut


def join(ids: Sequence[_Ids], types: Sequence[_Ids] | None, pad_token_id: int) -> Tokens:
    """Lists of tokens, one for each sequence, as one.

    Args:
      ids: of the tokens of each sequence.
      types: of the same; None for 0 everywhere.
      pad_token_id: as in `Tokens`.
    """
    offsets = np.concatenate([[0], np.cumsum([len(tokens) for tokens in ids])]).astype(np.int64)
    flat = _flat(ids)
    flat_types = np.zeros_like(flat) if types is None else _flat(types)
    return Tokens(flat, flat_types, offsets, pad_token_id)


def _flat(lists: Sequence[_Ids]) -> Int32[np.ndarray, " T"]:
    parts = (np.asarray(tokens, np.int32) for tokens in lists)
    return np.concatenate([np.zeros(0, np.int32), *parts])
