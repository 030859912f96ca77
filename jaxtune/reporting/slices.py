"""Scores of parts of the rows: by their length, and by a column of the data."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxtune.reporting import intervals
from jaxtune.reporting.parts import Section, Table, number
from jaxtune.run.predictions_folder import Kept

Measure = tuple[str, Callable[[np.ndarray], str]]
"""A score's name; the indices of some rows -> the score as it is shown."""

_MOST = 30  # values of a column


def share(right: np.ndarray) -> Callable[[np.ndarray], str]:
    """A share with its interval, of rows that are right or wrong."""
    return lambda rows: intervals.told(float(right[rows].sum()), len(rows))


def mean(values: np.ndarray) -> Callable[[np.ndarray], str]:
    """A mean, which has no such interval."""
    return lambda rows: number(float(values[rows].mean())) if len(rows) else "-"


def by_length(kept: Kept) -> list[tuple[str, np.ndarray]]:
    """The rows of each quarter by length, the shortest first; a length is in one part alone."""
    lengths = kept.arrays["lengths"]
    bounds = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1.0], method="inverted_cdf"))
    parts, low = [], int(lengths.min())
    for bound in bounds.astype(np.int64).tolist():
        rows = np.flatnonzero((lengths >= low) & (lengths <= bound))
        label = f"{low:,} to {bound:,}" if low < bound else f"{bound:,}"
        parts.append((f"{label} {kept.unit}", rows))
        low = bound + 1
    return parts


def by_value(values: Sequence[object]) -> list[tuple[str, np.ndarray]]:
    """The rows of each value of a column, the most frequent first; numbers of many in quarters."""
    numbers = _numbers(values)
    if numbers is not None and len(np.unique(numbers)) > _MOST:
        bounds = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75, 1.0], method="inverted_cdf"))
        places = np.searchsorted(bounds, numbers)
        edges = [float(numbers.min()), *bounds.tolist()]
        return [
            (f"{edges[i]:g} to {edges[i + 1]:g}", np.flatnonzero(places == i))
            for i in range(len(bounds))
        ]
    texts = np.array(["(empty)" if value in (None, "") else str(value) for value in values])
    found, inverse, counts = np.unique(texts, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    parts = [(str(found[i]), np.flatnonzero(inverse == i)) for i in order[:_MOST].tolist()]
    if len(order) > _MOST:
        rest = np.flatnonzero(np.isin(inverse, order[_MOST:]))
        parts.append((f"{len(order) - _MOST:,} other values", rest))
    return parts


def section(
    kept: Kept, measures: Sequence[Measure], column: tuple[str, Sequence[object]] | None
) -> Section | None:
    """Scores by length, and by a column where one is asked for.

    Args:
      kept: rows of a split.
      measures: scores of some rows.
      column: its name, and its value in each row.
    """
    tables = []
    quarters = by_length(kept) if kept.unit else []
    if len(quarters) > 1:
        tables.append(_table(f"length in {kept.unit}", quarters, measures))
    if column is not None:
        tables.append(_table(column[0], by_value(column[1]), measures))
    if not tables or not measures:
        return None
    shares = any(" (" in cell for table in tables for row in table.rows for cell in row[2:])
    told = "In brackets the 95% interval of Wilson, of a share of so many rows."
    notes = [told] if shares else []
    return Section("Slices", notes, tables=tables)


def _table(
    title: str, parts: Sequence[tuple[str, np.ndarray]], measures: Sequence[Measure]
) -> Table:
    rows = [
        (label, f"{len(rows):,}", *(measure(rows) for _, measure in measures))
        for label, rows in parts
    ]
    return Table((title, "rows", *(name for name, _ in measures)), rows, f"By {title}")


def _numbers(values: Sequence[object]) -> np.ndarray | None:
    try:
        found = np.array([float(value) for value in values])  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found).all() else None
