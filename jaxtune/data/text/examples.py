"""Tokenized examples of any length, kept as one flat array with offsets: no padding."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.io.json_files import sha256_of

_CHUNK = 2000  # texts tokenized at a time, so that progress can be shown
_TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".spm", ".tiktoken", ".jinja")
_EXPECTED = "Expected tokenizer.json, or vocab.txt, with tokenizer_config.json."


Draw = tuple[int, int]
"""(seed, epoch): what random changes to an example follow from, besides its index."""

Fields = dict[str, np.ndarray]
"""Of one example: `input_ids` and `token_type_ids` [t], and per-token `labels` and `weights`."""

Transform = Callable[[Fields, np.random.Generator, bool], Fields]
"""(fields, source of randomness, whether training) -> fields of the same length or shorter."""


class Examples(NamedTuple):
    """n examples of T tokens in all.

    Attributes:
      input_ids: tokens of all examples, one after the other.
      token_type_ids: 0 for the first text, 1 for the second.
      offsets: example i is the slice offsets[i] : offsets[i + 1].
      labels: of each example, [n] or [n c]; of each token, [T], where there are `weights`; None
        where unlabelled.
      weights: float32 [T]; 0 at tokens that are not scored. None where examples have one weight.
      pad_token_id: fills rows up.
      transform: changes an example each time that it goes into a batch; None for none.
      info: what decoding needs to know of each example.
      spans: whether the labels of an example are places of its tokens.
    """

    input_ids: Int[np.ndarray, " T"]
    token_type_ids: Int[np.ndarray, " T"]
    offsets: Int[np.ndarray, " n+1"]
    labels: np.ndarray | None
    weights: np.ndarray | None = None
    pad_token_id: int = 0
    transform: Transform | None = None
    info: Sequence[Any] = ()
    spans: bool = False

    @property
    def is_random(self) -> bool:
        """Whether an example changes from epoch to epoch."""
        return self.transform is not None

    @property
    def mixes(self) -> bool:
        """Whether training mixes the examples of a batch: never."""
        return False

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each example, special tokens included."""
        return np.diff(self.offsets)

    def collate(self, index: BatchIndex, batch_size: int, draw: Draw | None = None) -> Fields:
        """Pads the examples of a batch to its length, and a ragged batch to its full size.

        Or packs them: see `_pack`.

        Args:
          index: which examples, and the padded length.
          batch_size: rows of the batch; those past the examples have weight 0.
          draw: in training; None in evaluation, where an example is always the same.

        Returns:
          int32 `input_ids`, `attention_mask` and `token_type_ids` [b t]; int32 `example_ids` [b],
          the index of the example in the data, 0 for filling; float32 `weight`, 0 for filling,
          [b], or [b t] where tokens are scored; `labels`, where there are any.
        """
        if index.rows is not None:
            return self._pack(index, len(index.rows), draw)
        shape = (batch_size, index.length)
        batch: Fields = {
            "input_ids": np.full(shape, self.pad_token_id, np.int32),
            "attention_mask": np.zeros(shape, np.int32),
            "token_type_ids": np.zeros(shape, np.int32),
        }
        # A row of filling attends to one token, so that no softmax is empty.
        batch["attention_mask"][:, 0] = 1
        if self.weights is None:
            batch |= self.collate_labels(index.indices, batch_size)
        else:
            batch |= name_rows(index.indices, batch_size)
            batch["weight"] = np.zeros(shape, np.float32)
            batch["labels"] = np.zeros(shape, np.int32)
        for row, i in enumerate(index.indices):
            fields = self._example(int(i), draw)
            size = len(fields["input_ids"])
            batch["attention_mask"][row, :size] = 1
            for name, values in fields.items():
                batch["weight" if name == "weights" else name][row, :size] = values
        return batch

    def collate_labels(self, indices: Int[np.ndarray, " b"], batch_size: int) -> Fields:
        """What `collate` says of whole examples, where they have one weight each."""
        return labels_and_weight(self.labels, indices, batch_size)

    def _pack(self, index: BatchIndex, rows: int, draw: Draw | None) -> Fields:
        """Lays the examples of each row one after the other.

        Returns:
          int32 `input_ids`, `attention_mask`, `token_type_ids`, `position_ids`, which start anew
          with each example, and `segment_ids`, the number of the example in its row from 1, 0 at
          padding, all [r t]; int32 `first_tokens`, `last_tokens` and `example_ids` of each example
          [r s], where s is `index.slots`; `labels` and `weight` [r s], or [r t] where tokens are
          scored; 0 where a row has fewer examples.
        """
        tokens, slots = (rows, index.length), (rows, index.slots)
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "segment_ids")
        batch: Fields = {name: np.zeros(tokens, np.int32) for name in names}
        batch["input_ids"] += self.pad_token_id
        of_examples = ("first_tokens", "last_tokens", "example_ids")
        batch |= {name: np.zeros(slots, np.int32) for name in of_examples}
        scored = self.weights is not None
        batch["weight"] = np.zeros(tokens if scored else slots, np.float32)
        if scored:
            batch["labels"] = np.zeros(tokens, np.int32)
        elif self.labels is not None:
            batch["labels"] = np.zeros((*slots, *self.labels.shape[1:]), self.labels.dtype)
        for i, _, row, slot, start, _ in index.spans(self.lengths):
            fields = self._example(i, draw)
            size = len(fields["input_ids"])  # fewer than there is room for, if it was changed
            span = slice(start, start + size)
            for name, values in fields.items():
                batch["weight" if name == "weights" else name][row, span] = values
            batch["attention_mask"][row, span] = 1
            batch["position_ids"][row, span] = np.arange(size)
            batch["segment_ids"][row, span] = slot + 1
            batch["first_tokens"][row, slot] = start
            batch["last_tokens"][row, slot] = start + size - 1
            batch["example_ids"][row, slot] = i
            if not scored:
                batch["weight"][row, slot] = 1.0
            if not scored and self.labels is not None:
                batch["labels"][row, slot] = self.labels[i] + (start if self.spans else 0)
        return batch

    def _example(self, i: int, draw: Draw | None) -> Fields:
        """Example i as it goes into a batch."""
        span = slice(self.offsets[i], self.offsets[i + 1])
        fields = {"input_ids": self.input_ids[span], "token_type_ids": self.token_type_ids[span]}
        if self.weights is not None:
            labels = np.zeros(0, np.int32) if self.labels is None else self.labels
            fields |= {"labels": labels[span], "weights": self.weights[span]}
        if self.transform is None:
            return fields
        # Evaluation draws as an epoch that training never has.
        seeds = [*(draw or (0, 2**32 - 1)), i]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
        return self.transform(fields, rng, draw is not None)

    def __repr__(self) -> str:
        """Sizes, not contents."""
        return f"Examples({len(self.offsets) - 1} examples, {len(self.input_ids)} tokens)"


def name_rows(indices: Int[np.ndarray, " b"], batch_size: int) -> Fields:
    """`example_ids` [batch_size] of some examples, one a row; 0 in further rows."""
    return {"example_ids": np.pad(indices, (0, batch_size - len(indices))).astype(np.int32)}


def labels_and_weight(
    labels: np.ndarray | None, indices: Int[np.ndarray, " b"], batch_size: int
) -> Fields:
    """Labels of some examples, if there are any, weight 1 and index; 0 in further rows."""
    batch = name_rows(indices, batch_size)
    batch["weight"] = np.zeros(batch_size, np.float32)
    batch["weight"][: len(indices)] = 1.0
    if labels is not None:
        batch["labels"] = np.zeros((batch_size, *labels.shape[1:]), labels.dtype)
        batch["labels"][: len(indices)] = labels[indices]
    return batch


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
    flat = (_flat(ids), _flat(types), offsets, None)
    return Examples(*flat, pad_token_id=tokenizer.pad_token_id), cut


def _flat(lists: list[list[int]]) -> np.ndarray:
    return np.fromiter((token for tokens in lists for token in tokens), np.int32)
