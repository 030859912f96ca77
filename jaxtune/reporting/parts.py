"""What a report is made of, before it is drawn or written: nothing of HTML or matplotlib."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Plot(NamedTuple):
    """A figure.

    Attributes:
      name: of its files.
      title: in words, below it and for those who do not see it.
      paint: draws on matplotlib's axes.
      size: width and height, in inches; a phone shows 4.5 at its full size.
    """

    name: str
    title: str
    paint: Callable[[Any], None]
    size: tuple[float, float] = (4.5, 3.0)


class Table(NamedTuple):
    """Rows of texts under a header.

    Attributes:
      header: names of the columns; the first holds words, the others numbers.
      rows: as many texts each.
      title: what they are; empty where the section says it.
      words: how many columns, from the left, hold words.
      folded: whether a reader has to unfold it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: int = 1
    folded: bool = False


class Example(NamedTuple):
    """A row of the data that the model was wrong on.

    Attributes:
      title: which one.
      facts: names and values.
      texts: names and texts, of any length.
      image: a PNG in base64; empty for none.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    texts: Sequence[tuple[str, str]] = ()
    image: str = ""


class Section(NamedTuple):
    """A part of the report with a heading.

    Attributes:
      title: of the heading.
      notes: sentences below it.
      plots: figures.
      tables: of numbers.
      examples: rows of the data.
    """

    title: str
    notes: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    examples: Sequence[Example] = ()


def number(value: float | None, digits: int = 4) -> str:
    """A score; `-` where it is undefined."""
    if value is None or value != value:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:,.1f}"
