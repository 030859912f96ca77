"""Rows with one class each, as they are kept: probabilities and decisions again."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxtune.run.predictions_folder import Kept
from jaxtune.tasks.probabilities import softmax


class ClassRows(NamedTuple):
    """n rows.

    Attributes:
      labels: the right class; one beyond the names is none that training has.
      predicted: the likeliest class.
      logits: of all classes in their order, or of the likeliest of each row.
      classes: whose these are, [n k]; None where they are all.
      log_sums: of the exponentials of all logits.
      names: of the classes.
    """

    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, "n k"]
    classes: Int[np.ndarray, "n k"] | None
    log_sums: Float[np.ndarray, " n"]
    names: Sequence[str]

    @property
    def columns(self) -> Int[np.ndarray, " n"]:
        """Where the right class stands among the logits; beyond them where it does not."""
        if self.classes is None:
            return self.labels
        hits = self.classes == self.labels[:, None]
        return np.where(hits.any(axis=1), hits.argmax(axis=1), self.classes.shape[1])

    def probabilities(self, temperature: float = 1.0) -> Float[np.ndarray, "n k"]:
        """Of the kept classes; with a temperature, all classes must have been kept."""
        logits = self.logits.astype(np.float64)
        if temperature == 1.0:
            return np.exp(logits - self.log_sums[:, None])
        return softmax(logits / temperature)


def class_rows(kept: Kept, names: Sequence[str]) -> ClassRows:
    """What was kept of a classification."""
    arrays: Mapping[str, Any] = kept.arrays
    classes, best = arrays.get("classes"), np.argmax(arrays["logits"], axis=1)
    predicted = best if classes is None else classes[np.arange(len(best)), best]
    labels = arrays["labels"].astype(np.int64)
    return ClassRows(
        labels, predicted.astype(np.int64), arrays["logits"], classes, arrays["log_sums"], names
    )


def name(names: Sequence[str], place: int) -> str:
    """The name of a class."""
    return names[place] if 0 <= place < len(names) else "a class that training does not have"
