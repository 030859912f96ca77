"""From texts to tokens: a model folder's tokenizer, and the tokens of many texts as one array."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import sha256_of

_CHUNK = 2000  # texts tokenized at a time, so that progress can be shown
_TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".spm", ".tiktoken", ".jinja")
_EXPECTED = "Expected tokenizer.json, or vocab.txt, with tokenizer_config.json."


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


class FolderTokenizer:
    """A folder's tokenizer, loaded when something of it is first asked for.

    To import transformers and to load takes a second, and whoever finds the tokens of an earlier
    run needs neither before the export. Has all attributes of the tokenizer itself.
    """

    def __init__(self, folder: Path, max_size: int) -> None:
        """Loads nothing.

        Args:
          folder: as of `load_tokenizer`, whose errors come when it is loaded.
          max_size: the most tokens that the model knows.
        """
        self._folder, self._max_size = folder, max_size

    @cached_property
    def loaded(self) -> Any:
        """The tokenizer itself.

        Raises:
          UserError: as `load_tokenizer`, or it has more tokens than `max_size`.
        """
        tokenizer = load_tokenizer(self._folder)
        if len(tokenizer) > self._max_size:
            raise UserError(
                f"{self._folder}: the tokenizer has {len(tokenizer)} tokens, but the model has"
                f" {self._max_size} word embeddings. They do not belong together."
            )
        return tokenizer

    @cached_property
    def digest(self) -> str:
        """Of the names and contents of all files that a tokenizer may be made from."""
        digest = hashlib.sha256()
        for file in sorted(self._folder.iterdir()):
            if file.suffix in _TOKENIZER_SUFFIXES and file.is_file():
                digest.update(f"{file.name!r} {sha256_of([file])}\n".encode())
        return digest.hexdigest()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by Python itself
            raise AttributeError(name)
        return getattr(self.loaded, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the tokenizer's own."""
        return self.loaded(*args, **kwargs)

    def __len__(self) -> int:
        """How many tokens it has."""
        return len(self.loaded)


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
    if tokenizer.pad_token_id is None:  # GPT-2's; which token fills a row makes no difference
        if tokenizer.eos_token is None:
            raise UserError(f"{folder}: the tokenizer has no padding token; set one in its files.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenize(
    tokenizer: Any,
    rows: Sequence[tuple[str, ...]],
    max_length: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[Tokens, int]:
    """Tokenizes texts or pairs of texts, cut to `max_length` tokens.

    The tokenizer's own truncation and padding settings are not used. Of a pair, the longer text
    is cut first.

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
