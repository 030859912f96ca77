"""Tokenized examples of any length, and how they are laid into batches."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.ragged import offsets_of
from jaxtune.data.sources.class_sets import ClassSets
from jaxtune.data.text.tokens import Tokens

Draw = tuple[int, int]
"""(seed, epoch): what random changes to an example follow from, besides its index."""

Fields = dict[str, np.ndarray]
"""Of one example: `input_ids` and `token_type_ids` [t], and per-token `labels` and `weights`."""

Transform = Callable[[Fields, np.random.Generator, bool], Fields]
"""(fields, source of randomness, whether training) -> fields of the same length or shorter."""


class Examples(NamedTuple):
    """n examples of T tokens in all.

    Attributes:
      tokens: of each example.
      labels: of each example, [n] or [n c], or the classes that each has; of each token, [T],
        where there are `weights`; None where unlabelled.
      weights: float32 [T]; 0 at tokens that are not scored. None where examples have one weight.
      transform: changes an example each time that it goes into a batch; None for none.
      info: what decoding needs to know of each example.
      spans: whether the labels of an example are places of its tokens.
    """

    tokens: Tokens
    labels: np.ndarray | ClassSets | None = None
    weights: np.ndarray | None = None
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
        return self.tokens.lengths

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
            "input_ids": np.full(shape, self.tokens.pad_token_id, np.int32),
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
        batch["input_ids"] += self.tokens.pad_token_id
        of_examples = ("first_tokens", "last_tokens", "example_ids")
        batch |= {name: np.zeros(slots, np.int32) for name in of_examples}
        scored = self.weights is not None
        batch["weight"] = np.zeros(tokens if scored else slots, np.float32)
        own = None  # labels of the examples
        if scored:
            batch["labels"] = np.zeros(tokens, np.int32)
        elif self.labels is not None:
            own = rows_of(self.labels, index.indices)
            batch["labels"] = np.zeros((*slots, *own.shape[1:]), own.dtype)
        for i, place, row, slot, start, _ in index.spans(self.lengths):
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
            if own is not None:
                batch["labels"][row, slot] = own[place] + (start if self.spans else 0)
        return batch

    def _example(self, i: int, draw: Draw | None) -> Fields:
        """Example i as it goes into a batch."""
        ids, types, offsets, _ = self.tokens
        span = slice(offsets[i], offsets[i + 1])
        fields = {"input_ids": ids[span], "token_type_ids": types[span]}
        if self.weights is not None:
            labels = np.zeros(0, np.int32) if self.labels is None else np.asarray(self.labels)
            fields |= {"labels": labels[span], "weights": self.weights[span]}
        if self.transform is None:
            return fields
        # Evaluation draws as an epoch that training never has.
        seeds = [*(draw or (0, 2**32 - 1)), i]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
        return self.transform(fields, rng, draw is not None)

    def __repr__(self) -> str:
        """Sizes, not contents."""
        return f"Examples({len(self.lengths)} examples, {len(self.tokens.input_ids)} tokens)"


def joined(parts: Sequence[tuple[Examples, int]]) -> Examples:
    """Some examples as they go into a batch of an evaluation, whatever data each of them is of.

    Args:
      parts: data and the index of an example in it, at least one; all of the same kind.

    Returns:
      These examples in their order, which no transform changes any more, without `info`.
    """
    fields = [examples._example(i, None) for examples, i in parts]
    flat = {name: np.concatenate([own[name] for own in fields]) for name in fields[0]}
    offsets = offsets_of(np.array([len(own["input_ids"]) for own in fields], np.int64))
    pad = parts[0][0].tokens.pad_token_id
    tokens = Tokens(flat["input_ids"], flat["token_type_ids"], offsets, pad)
    return Examples(tokens, flat.get("labels"), flat.get("weights"))


def name_rows(indices: Int[np.ndarray, " b"], batch_size: int) -> Fields:
    """`example_ids` [batch_size] of some examples, one a row; 0 in further rows."""
    return {"example_ids": np.pad(indices, (0, batch_size - len(indices))).astype(np.int32)}


def rows_of(labels: np.ndarray | ClassSets, indices: Int[np.ndarray, " m"]) -> np.ndarray:
    """The labels of some examples, as an array."""
    return labels.flags(indices) if isinstance(labels, ClassSets) else labels[indices]


def labels_and_weight(
    labels: np.ndarray | ClassSets | None, indices: Int[np.ndarray, " b"], batch_size: int
) -> Fields:
    """Labels of some examples, if there are any, weight 1 and index; 0 in further rows."""
    batch = name_rows(indices, batch_size)
    batch["weight"] = np.zeros(batch_size, np.float32)
    batch["weight"][: len(indices)] = 1.0
    if labels is not None:
        batch["labels"] = np.zeros((batch_size, *labels.shape[1:]), labels.dtype)
        batch["labels"][: len(indices)] = rows_of(labels, indices)
    return batch
