"""What a model reads of new rows, and why a row has no answer: it is no error that ends the job."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.data.sources.table import Table, column, num_rows, where
from jaxtune.data.text import labels

BLANK = "-"
"""Stands for a text that is empty or cannot be read; what is predicted of it is not told."""


def new_texts(
    table: Table, columns: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[str] | None]:
    """As `labels.text_rows`, to predict on: an empty text is no error.

    Returns:
      (texts, with `BLANK` in the place of those that are none; as `new_values`).

    Raises:
      UserError: as `new_values`.
    """
    values, reasons = new_values(table, columns, BLANK)
    return labels.text_rows(table._replace(columns=table.columns | values), columns), reasons


def is_text(value: Any) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def new_values(
    table: Table,
    names: Sequence[str],
    stand_in: Any,
    is_good: Callable[[Any], bool] = is_text,
    expected: str = "a text",
) -> tuple[dict[str, list[Any]], list[str] | None]:
    """The columns that a model reads of rows to predict on.

    Args:
      table: n rows; `skipped` tells of those that could not be read.
      names: of the columns.
      stand_in: in the place of a value that is blank or not good.
      is_good: whether a model can read a value.
      expected: such a value, for messages.

    Returns:
      (the columns by name; why a row has no answer, empty where it has one, or None where all
      have).

    Raises:
      UserError: there is no such column, or no row can be read, and not as all of them are blank.
    """
    faults = table.skipped.kept
    reasons = [faults.get(i, "") for i in range(num_rows(table))]
    odd, values = next(iter(faults.values()), None), {}
    for name in names:
        found = values[name] = [*column(table, name)]
        for i, value in enumerate(found):
            if reasons[i]:
                found[i] = stand_in
            elif labels.is_blank(value) or value == []:
                found[i], reasons[i] = stand_in, f"{where(table, i)}: the column {name!r} is empty"
            elif not is_good(value):
                wrong = f"found {labels.shown(value)} in the column {name!r}"
                found[i] = stand_in
                reasons[i] = f"{where(table, i)}: {wrong}, but expected {expected}"
                odd = odd or reasons[i]
    return values, known(reasons, odd, table.source)


def known(reasons: list[str], odd: str | None, source: str) -> list[str] | None:
    """Why rows have no answer; None where all have one.

    Args:
      reasons: of each row, empty where it has one.
      odd: a reason that is another one than that there is nothing; None for none.
      source: of the rows, for the message.

    Raises:
      UserError: no row has an answer, and there is such a reason.
    """
    if odd is not None and all(reasons):
        raise UserError(f"{source}: none of {len(reasons)} rows can be read. First: {odd}")
    return reasons if any(reasons) else None
