"""Tables and lines that a narrow console breaks between words, and never within one."""

import re
from collections.abc import Sequence

from rich.cells import cell_len

_INDENT, _GAPS = 2, (4, 2)
_LEAST = 24
"""Characters that the column of words has, however narrow the console is."""


def break_words(text: str, width: int) -> list[str]:
    """The lines of a text; a word that is longer than one, such as a path, stays whole.

    Args:
      text: plain.
      width: cells a line, of which some letters take two.
    """
    lines = [""]
    for word in re.findall(r"\s*\S+", text):
        if lines[-1] and cell_len(lines[-1]) + cell_len(word) > width:
            lines.append(word.lstrip())
        else:
            lines[-1] += word
    return lines


def columns(rows: Sequence[Sequence[str]], wide: int, width: int) -> list[str]:
    """Rows of cells under each other.

    Args:
      rows: of as many cells each.
      wide: the column that gives way where the console is narrow. It and those before it are words,
        aligned to the left, and those after it numbers, aligned to the right.
      width: of the console.
    """
    if not rows:
        return []
    sizes = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    gap, room = _fit(sizes, wide, width)
    sizes[wide] = min(sizes[wide], room)
    lines = []
    for row in rows:
        for number, part in enumerate(break_words(row[wide], room)):
            cells = [part if i == wide else "" if number else cell for i, cell in enumerate(row)]
            pads = [" " * (size - cell_len(cell)) for size, cell in zip(sizes, cells, strict=True)]
            placed = [
                pad + cell if i > wide else cell + pad
                for i, (cell, pad) in enumerate(zip(cells, pads, strict=True))
            ]
            lines.append((" " * _INDENT + (" " * gap).join(placed)).rstrip())
    return lines


def _fit(sizes: Sequence[int], wide: int, width: int) -> tuple[int, int]:
    """The gap between columns, and the room that is left for the one that gives way."""
    others = _INDENT + sum(sizes) - sizes[wide]
    rooms = [(gap, width - others - gap * (len(sizes) - 1)) for gap in _GAPS]
    gap, room = next((pair for pair in rooms if pair[1] >= sizes[wide]), rooms[-1])
    return gap, max(_LEAST, room)
