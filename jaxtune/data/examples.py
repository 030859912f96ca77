"""Tokenized examples of any length, kept as one flat array with offsets: no padding."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.errors import UserError

_CHUNK = 2000  # texts tokenized at a time, so that progress can be shown
_EXPECTED = "Expected tokenizer.json, or vocab.txt, with tokenizer_config.json."


class Examples(NamedTuple):
    """n examples of T tokens in all.

    Attributes:
      input_ids: tokens of all examples, one after the other.
      token_type_ids: 0 for the first text, 1 for the second.
      offsets: example i is the slice offsets[i] : offsets[i + 1].
      labels: class indices (int32) or targets (float32); None where unlabelled.
    """

    input_ids: Int[np.ndarray, " T"]
    token_type_ids: Int[np.ndarray, " T"]
    offsets: Int[np.ndarray, " n+1"]
    labels: np.ndarray | None

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each example, special tokens included."""
        return np.diff(self.offsets)

    def __repr__(self) -> str:
        """Sizes, not contents."""
        return f"Examples({len(self.offsets) - 1} examples, {len(self.input_ids)} tokens)"


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, as transformers loads it.

    Raises:
      UserError: no tokenizer files, or no padding token.
    """
    # Without torch, transformers says at import that it has no models; nobody needs to act on it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{folder} has no tokenizer that transformers can load: {str(error).splitlines()[0]}"
            f" {_EXPECTED}"
        ) from None
    # Without its vocabulary transformers builds one of special tokens alone, and says nothing.
    files = tokenizer.vocab_files_names.values()
    if not any((folder / file).is_file() for file in files):
        raise UserError(f"{folder} has no tokenizer: none of {', '.join(files)}. {_EXPECTED}")
    if tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no padding token; set one in its files.")
    return tokenizer


def tokenize(
    tokenizer: Any,
    rows: Sequence[tuple[str, ...]],
    max_length: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[Examples, int]:
    """Tokenizes texts or pairs of texts, cut to `max_length` tokens.

    The tokenizer's own truncation and padding settings are not used. Of a pair, the longer text
    is cut first.

    Args:
      tokenizer: from `load_tokenizer`.
      rows: one or two texts each.
      max_length: tokens, special ones included.
      track: wraps the iteration over chunks, to show progress.

    Returns:
      (examples without labels, how many were cut).
    """
    ids: list[list[int]] = []
    types: list[list[int]] = []
    cut = 0
    for start in track(range(0, len(rows), _CHUNK)):
        columns = [list(column) for column in zip(*rows[start : start + _CHUNK], strict=True)]
        options = {"padding": False, "return_token_type_ids": True, "verbose": False}
        encoded = tokenizer(*columns, truncation=False, **options)
        long = [i for i, tokens in enumerate(encoded["input_ids"]) if len(tokens) > max_length]
        if long:
            few = [[column[i] for i in long] for column in columns]
            again = tokenizer(*few, truncation="longest_first", max_length=max_length, **options)
            for position, i in enumerate(long):
                encoded["input_ids"][i] = again["input_ids"][position]
                encoded["token_type_ids"][i] = again["token_type_ids"][position]
        cut += len(long)
        ids += encoded["input_ids"]
        types += encoded["token_type_ids"]
    offsets = np.concatenate([[0], np.cumsum([len(tokens) for tokens in ids])]).astype(np.int64)
    return Examples(_flat(ids), _flat(types), offsets, None), cut


def _flat(lists: list[list[int]]) -> np.ndarray:
    return np.fromiter((token for tokens in lists for token in tokens), np.int32)
