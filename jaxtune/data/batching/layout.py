"""Which examples make a training batch, and how they lie in it: packed, bucketed or padded."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.data.batching import batches, capped, packing
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.capped import Caps
from jaxtune.data.batching.groups import Groups
from jaxtune.data.batching.packing import Packing, RowShape, Use
from jaxtune.models.attention_path import USUAL, AttentionCost

NUM_LENGTHS = 4  # padded lengths of the bucketed layout: each is one more compilation
NUM_ROW_SHAPES = 3  # of the packed layout, where the run is long enough for so many

Kind = Literal["packed", "bucketed", "padded"]


class Layout(NamedTuple):
    """How training batches are made.

    `packed` and `padded` batches hold the same examples, each a mix of all lengths; those of a
    `bucketed` batch have like lengths.

    Attributes:
      kind: `packed` puts several examples into a row; `bucketed` pads to one of a few lengths,
        `padded` to one.
      batch_size: examples of a batch, on average; groups of them, where these are drawn together.
      lengths: padded lengths in tokens, increasing.
      packing: the shapes of packed batches; None for other layouts.
      multiple: the rows of every batch are a multiple of it.
      caps: of `bucketed` batches, where `batch_size` of the long examples are too many tokens;
        None elsewhere.
      members: the most examples of a group; 1 where each is drawn by itself.
    """

    kind: Kind
    batch_size: int
    lengths: tuple[int, ...]
    packing: Packing | None = None
    multiple: int = 1
    caps: Caps | None = None
    members: int = 1

    def num_rows(self, index: BatchIndex) -> int:
        """Rows of a batch, filling included."""
        if index.rows is not None:
            return len(index.rows)
        size = self.batch_size * self.members
        if self.caps is not None:
            size = self.caps.rows[int(np.searchsorted(self.lengths, index.length))]
        return -(-size // self.multiple) * self.multiple

    def num_batches(self, lengths: Int[np.ndarray, " n"]) -> int:
        """Batches of one epoch."""
        if self.caps is not None:
            return capped.num_batches(lengths, self.lengths, self.caps)
        return -(-len(lengths) // self.batch_size)

    def drawn_by(self, lengths: Int[np.ndarray, " N"], groups: Groups) -> Int[np.ndarray, " n"]:
        """Tokens of each group, by which `order` draws groups as it does single examples.

        Those of a batch of like lengths are alike in their longest; a mix of lengths is one of
        their sums.

        Args:
          lengths: tokens of each example.
          groups: of them.
        """
        return groups.lengths(lengths, "longest" if self.kind == "bucketed" else "total")

    def order(
        self, lengths: Int[np.ndarray, " n"], seed: int, epoch: int
    ) -> list[Int[np.ndarray, " b"]]:
        """The examples of each batch of one epoch; each example is in one.

        Args:
          lengths: tokens of each example.
          seed: of the run.
          epoch: from 0.
        """
        if self.caps is not None:
            return capped.train_order(lengths, self.lengths, self.caps, seed, epoch)
        if self.kind == "bucketed":
            order = batches.train_order(lengths, self.lengths, self.batch_size, seed, epoch)
            return [index.indices for index in order]
        return packing.mixed_batches(lengths, self.batch_size, seed, epoch)

    def eval_order(self, lengths: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " b"]]:
        """The examples of each batch of an evaluation; each example is in one."""
        if self.packing is not None:
            return packing.mixed_batches(lengths, self.batch_size, 0, 0)
        if self.caps is not None:
            return capped.eval_order(lengths, self.lengths, self.caps)
        order = batches.eval_order(lengths, self.lengths, self.batch_size)
        return [index.indices for index in order]

    def place(self, indices: Int[np.ndarray, " b"], lengths: Int[np.ndarray, " n"]) -> BatchIndex:
        """Where the examples of a batch lie.

        Args:
          indices: of the examples.
          lengths: tokens of each example of the data.
        """
        own = lengths[indices]
        if self.packing is None:
            longest = int(own.max(initial=0))
            return BatchIndex(indices, self.lengths[np.searchsorted(self.lengths, longest)])
        shape, rows = packing.place(own.tolist(), self.packing)
        return BatchIndex(indices, shape.length, rows, self.packing.slots)

    def collate(
        self,
        examples: Any,
        index: BatchIndex,
        draw: tuple[int, int] | None = None,
        rows: slice | None = None,
    ) -> dict[str, np.ndarray]:
        """The fields of a batch, or of some of its rows.

        Args:
          examples: of the data.
          index: of the batch.
          draw: (seed, epoch) in training.
          rows: start and stop; None for all. What other rows need is not read.
        """
        count = self.num_rows(index)
        if rows is None or (rows.start, rows.stop) == (0, count):
            return examples.collate(index, count, draw)
        if draw is not None and examples.mixes:
            whole = examples.collate(index, count, draw)
            return {name: values[rows] for name, values in whole.items()}
        return examples.collate(index.part(rows), rows.stop - rows.start, draw)

    def shapes(self) -> tuple[RowShape, ...]:
        """Rows and tokens of the batches that are to be expected."""
        if self.packing is None:
            alone = [BatchIndex(np.arange(0), length) for length in self.lengths]
            return tuple(RowShape(self.num_rows(index), index.length) for index in alone)
        return self.packing.shapes[:-2] or self.packing.shapes

    def empty(self) -> BatchIndex:
        """A batch of no example in the largest of these shapes."""
        largest = max(self.shapes(), key=lambda shape: shape.rows * shape.length)
        nothing = np.arange(0)
        if self.packing is None:
            return BatchIndex(nothing, largest.length)
        return BatchIndex(nothing, largest.length, ((),) * largest.rows, self.packing.slots)


def choose_layout(
    kind: Kind,
    lengths: Int[np.ndarray, " n"] | Sequence[Int[np.ndarray, " n"]],
    batch_size: int,
    limit: int | None = None,
    multiple: int = 1,
    attention: AttentionCost = USUAL,
    use: Use | None = None,
) -> Layout:
    """Chooses the shapes for some examples.

    Args:
      kind: see `Layout`.
      lengths: tokens of each example; or several of these, of splits that share the shapes.
      batch_size: examples of a batch.
      limit: the positions that the model has.
      multiple: the rows of a batch are a multiple of it.
      attention: what it costs the model, by which packed rows are chosen.
      use: how often these batches come up, by which the number of packed shapes is chosen; and
        which examples of the one split are drawn together.
    """
    splits = [lengths] if isinstance(lengths, np.ndarray) else list(lengths)
    groups = None if use is None else use.groups
    members = 1 if groups is None else groups.largest
    num_lengths = NUM_LENGTHS if kind == "bucketed" else 1
    padded = batches.choose_lengths(np.concatenate(splits), num_lengths, limit)
    if kind != "packed":
        caps = None
        if kind == "bucketed" and groups is None:  # whose batches are to be of one size
            # What is given by itself is trained on, in a number of batches that is known before.
            choose = capped.choose_caps if isinstance(lengths, np.ndarray) else capped.limit_caps
            caps = choose(np.concatenate(splits), padded, batch_size)
        return Layout(kind, batch_size, padded, None, multiple, caps, members)
    chosen = packing.choose_packing(
        splits, batch_size, NUM_ROW_SHAPES, multiple=multiple, attention=attention, use=use
    )
    return Layout(kind, batch_size, padded, chosen, multiple, members=members)
