"""What is told of predicted rows, made when it is asked for: of many classes it is much."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

Record = dict[str, Any]
"""Of one row, JSON-like."""

Records = Sequence[Record]
"""One for each row that was predicted."""


class LazyRecords(Sequence[Record]):
    """Records that are made anew each time that one is asked for."""

    def __init__(self, size: int, make: Callable[[int], Record]) -> None:
        """Holds how they are made.

        Args:
          size: how many there are.
          make: index of a row -> its record.
        """
        self._size, self._make = size, make

    def __len__(self) -> int:
        """How many there are."""
        return self._size

    def __getitem__(self, i: Any) -> Any:
        """One record, or a list of some."""
        if isinstance(i, slice):
            return [self[place] for place in range(*i.indices(self._size))]
        place = range(self._size)[i]  # from the end, where it is negative
        return self._make(place)

    def __iter__(self) -> Iterator[Record]:
        return map(self._make, range(self._size))


def class_records(
    outputs: Float[np.ndarray, "n c"],
    class_names: Sequence[str],
    top_k: int | None,
    read: Callable[[Float[np.ndarray, " c"]], tuple[Record, Float[np.ndarray, " c"]]],
    temperature: float = 1.0,
) -> LazyRecords:
    """Records of rows whose classes each have a probability, told last, as `probabilities`.

    Args:
      outputs: logits, float32 [n c].
      class_names: c names in the order of the outputs.
      top_k: classes whose probability is told, the likeliest first; None for all, in their order.
      read: logits of a row, float64 -> (what else is told of it, the probability of each class).
      temperature: that the logits are divided by.

    Raises:
      ValueError: another number of names than of outputs.
    """
    if outputs.shape[1] != len(class_names):
        raise ValueError(f"{len(class_names)} names of classes, but {outputs.shape[1]} outputs")

    def record(i: int) -> Record:
        told, probabilities = read(outputs[i].astype(np.float64) / temperature)
        return told | {"probabilities": _by_class(probabilities, class_names, top_k)}

    return LazyRecords(len(outputs), record)


def _by_class(
    probabilities: Float[np.ndarray, " c"], class_names: Sequence[str], top_k: int | None
) -> dict[str, float]:
    if top_k is None:
        return dict(zip(class_names, probabilities.tolist(), strict=True))
    best = _largest(probabilities, top_k)
    return dict(zip((class_names[i] for i in best), probabilities[best].tolist(), strict=True))


def _largest(values: Float[np.ndarray, " c"], count: int) -> list[int]:
    """Where the largest values are, these first; of equals the first."""
    if count < len(values):
        least = np.partition(values, -count)[-count]
        places = np.flatnonzero(values >= least)
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:count].tolist()
