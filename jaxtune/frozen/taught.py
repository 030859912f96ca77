"""Training examples with what a teacher gives for them, which is computed once and kept."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.frozen.store import ActivationCache
from jaxtune.training.distillation import STATE_SHARES, TEACHER_OUTPUTS, TEACHER_STATES

Fields = dict[str, np.ndarray]


class Lesson(NamedTuple):
    """What is kept of a teacher for n examples.

    Attributes:
      outputs: one state of each example, or one of each token.
      per_token: whether outputs are of tokens.
      states: hidden states of each token, or place of an image, [k d]; None where none are learnt.
      places: of an image; None where an example has as many as tokens.
    """

    outputs: ActivationCache
    per_token: bool = False
    states: ActivationCache | None = None
    places: int | None = None

    def keep(self, index: BatchIndex, outputs: Any, states: Any) -> None:
        """Keeps what the teacher gave for a batch.

        Args:
          index: of the batch.
          outputs: [b c], of packed rows with s examples [r s c], of tokens [r t c].
          states: [r t k d], where they are learnt; else None.
        """
        # An output of an example lies where an example of one token would.
        alone = outputs.ndim == 2
        self.outputs.put(index, outputs[:, None] if alone else outputs)
        if self.states is not None:
            self.states.put(index, states)


class TaughtExamples(NamedTuple):
    """Examples whose batches have `teacher_outputs`, and where they are learnt `teacher_states`.

    Attributes:
      examples: without a teacher.
      lesson: of these examples.
    """

    examples: Any
    lesson: Lesson

    @property
    def is_random(self) -> bool:
        """As of the examples."""
        return self.examples.is_random

    @property
    def mixes(self) -> bool:
        """As of the examples."""
        return self.examples.mixes

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """As of the examples."""
        return self.examples.lengths

    def collate(
        self, index: BatchIndex, batch_size: int, draw: tuple[int, int] | None = None
    ) -> Fields:
        """As of the examples, with what the teacher gives for them.

        Returns:
          Beside the others' fields `teacher_outputs` in the shape of the model's outputs, 0 where
          there is no example; and, where hidden states are learnt, `teacher_states` [r t k d] and
          `state_shares` [r t], in which the tokens of an example add up to its weight.
        """
        fields = self.examples.collate(index, batch_size, draw)
        lesson, packed = self.lesson, index.rows is not None
        if lesson.per_token:
            outputs = lesson.outputs.take(index, batch_size, index.length)
        else:
            outputs = lesson.outputs.take(index, batch_size, index.slots if packed else 1)
            outputs = outputs if packed else outputs[:, 0]
        fields[TEACHER_OUTPUTS] = outputs
        if lesson.states is not None:
            length = index.length if lesson.places is None else lesson.places
            fields[TEACHER_STATES] = lesson.states.take(index, batch_size, length)
            fields[STATE_SHARES] = self._shares(index, fields["weight"], (batch_size, length))
        return fields

    def collate_labels(self, indices: Int[np.ndarray, " b"], batch_size: int) -> Fields:
        """As of the examples, with the teacher's outputs."""
        fields = self.examples.collate_labels(indices, batch_size)
        taken = self.lesson.outputs.take(BatchIndex(indices, 1), batch_size, 1)
        return fields | {TEACHER_OUTPUTS: taken[:, 0]}

    def _shares(
        self, index: BatchIndex, weight: Float[np.ndarray, "..."], shape: tuple[int, int]
    ) -> Float32[np.ndarray, "r t"]:
        """What each token counts: the weight of its example, shared out."""
        assert self.lesson.states is not None
        shares = np.zeros(shape, np.float32)
        scored = getattr(self.examples, "weights", None) is not None
        for _, _, row, slot, start, stop in index.spans(self.lesson.states.sizes):
            if scored:
                own = weight[row, start:stop].sum()
            else:
                own = weight[row] if weight.ndim == 1 else weight[row, slot]
            shares[row, start:stop] = own / (stop - start)
        return shares
