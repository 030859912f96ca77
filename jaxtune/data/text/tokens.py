"""From texts to tokens: a model folder's tokenizer, and the tokens of many texts as one array."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from jaxtune.data.ragged import offsets_of
from jaxtune.data.text.token_parts import Part, parts
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokenizer_files import load_tokenizer

__all__ = ["Tokens", "join", "load_tokenizer", "tokenize"]

_Ids = Sequence[int] | Int32[np.ndarray, " t"]


class Tokens(NamedTuple):
    """n sequences of T tokens in all, one after the other: no padding.

    Attributes:
      input_ids: of all tokens; of texts uint16 where the vocabulary fits, else int32.
      token_type_ids: 0 for the first text, 1 for the second; where all are 0 they take no memory.
      offsets: sequence i is the slice offsets[i] : offsets[i + 1].
      pad_token_id: fills rows up.
    """

    input_ids: Int[np.ndarray, " T"]
    token_type_ids: Int[np.ndarray, " T"]
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
    found = list(parts(tokenizer, rows, max_length, track))
    ids = np.concatenate([np.zeros(0, tokenizer.id_dtype), *(part.input_ids for part in found)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in found)])
    types = no_types(len(ids))
    if any(part.token_type_ids is not None for part in found):
        own = (types_of(part) for part in found)
        types = np.concatenate([*own])
    tokens = Tokens(ids, types, offsets_of(lengths), tokenizer.pad_token_id)
    return tokens, sum(part.num_cut for part in found)


def no_types(size: int) -> UInt8[np.ndarray, " T"]:
    """Zeros that take no memory."""
    return np.broadcast_to(np.zeros((), np.uint8), size)


def types_of(part: Part) -> UInt8[np.ndarray, " T"]:
    """The token types of a part."""
    types = part.token_type_ids
    return no_types(len(part.input_ids)) if types is None else types


def join(ids: Sequence[_Ids], types: Sequence[_Ids] | None, pad_token_id: int) -> Tokens:
    """Lists of tokens, one for each sequence, as one.

    Args:
      ids: of the tokens of each sequence.
      types: of the same; None for 0 everywhere.
      pad_token_id: as in `Tokens`.
    """
    offsets = offsets_of(np.array([len(tokens) for tokens in ids], np.int64))
    flat = _flat(ids)
    flat_types = no_types(len(flat)) if types is None else _flat(types)
    return Tokens(flat, flat_types, offsets, pad_token_id)


def _flat(lists: Sequence[_Ids]) -> Int32[np.ndarray, " T"]:
    parts = (np.asarray(tokens, np.int32) for tokens in lists)
    return np.concatenate([np.zeros(0, np.int32), *parts])
