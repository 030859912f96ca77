"""Rows of texts in little memory."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtune.data.sources.rows import Rows


class Packed(Sequence[tuple[str, ...]]):
    """Rows of texts, kept as the bytes of all of them, a third of what the objects take."""

    def __init__(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Copies rows of equal numbers of texts."""
        self._width = len(rows[0])
        parts = [text.encode("utf-8", "surrogatepass") for row in rows for text in row]
        self._ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        self._bytes = b"".join(parts)

    def __len__(self) -> int:
        """How many rows there are."""
        return (len(self._ends) - 1) // self._width

    def __getitem__(self, i: Any) -> Any:
        """The texts of a row."""
        if i >= len(self):
            raise IndexError(i)  # which ends an iteration
        ends = self._ends[i * self._width : (i + 1) * self._width + 1].tolist()
        pairs = itertools.pairwise(ends)
        return tuple(self._bytes[a:b].decode("utf-8", "surrogatepass") for a, b in pairs)


def compact(rows: Rows) -> Rows:
    """The rows, packed where they are texts, to be read before a model needs the memory."""
    texts = all(isinstance(row, tuple) and all(type(x) is str for x in row) for row in rows.inputs)
    return rows._replace(inputs=Packed(rows.inputs)) if texts and rows.inputs else rows
