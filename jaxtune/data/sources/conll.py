"""CoNLL files: a word a line with its tag last, and a blank line between sentences."""

import re
from collections.abc import Sequence

from jaxtune.core.errors import UserError
from jaxtune.data.sources.table import Table

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".annotated")
WORDS, TAGS = "words", "tags"
"""The columns of such a table."""

_DOCSTART = "-DOCSTART-"
_EXPECTED = (
    "a word first and its tag last, with tabs or spaces between them, the same number of fields on"
    " every line, and a blank line after each sentence"
)


def to_table(lines: Sequence[str], path: str) -> Table:
    """One row for each sentence.

    A line with a tab is split at tabs, any other at spaces. Lines of white space and those that
    start with `-DOCSTART-` end a sentence and are no part of one. There are no comments: `#` is a
    word.

    Args:
      lines: of the file, without line ends.
      path: for messages.

    Returns:
      Columns `words` and `tags`, lists of strings; `tags` is missing where every line has one
      field. A row's place is the line of its first word; the others follow line by line.

    Raises:
      UserError: a line with another number of fields than the first, or without a word.
    """
    words: list[list[str]] = []
    tags: list[list[str]] = []
    rows: list[int] = []
    first: tuple[int, int] | None = None  # line and number of fields
    inside = False
    for line, content in enumerate(lines, start=1):
        fields = _fields(content)
        if not fields or fields[0] == _DOCSTART:
            inside = False
            continue
        first = first or (line, len(fields))
        if len(fields) != first[1] or not fields[0] or not fields[-1]:
            raise _odd_line(path, line, content, lines, first)
        if not inside:
            inside = True
            rows.append(line)
            words.append([])
            tags.append([])
        words[-1].append(fields[0])
        tags[-1].append(fields[-1])
    tagged = first is not None and first[1] > 1
    return Table({WORDS: words} | ({TAGS: tags} if tagged else {}), path, rows, {})


def _fields(content: str) -> list[str]:
    """The fields of a line, none of a blank one; a no-break space is part of a word."""
    content = content.rstrip(" \t")
    if not content:
        return []
    if "\t" in content:
        return [field.strip(" ") for field in content.split("\t")]
    return re.split(" +", content.lstrip(" "))


def _odd_line(
    path: str, line: int, content: str, lines: Sequence[str], first: tuple[int, int]
) -> UserError:
    number, count = first
    fields = f"{count} field{'s' if count > 1 else ''}"
    start = f", as line {number} has ({lines[number - 1][:40]!r})" if line != number else ""
    return UserError(
        f"{path} line {line}: found {content[:80]!r}, but expected {fields}{start}: {_EXPECTED}."
        " Correct or remove the line that differs; comments have no place in a CoNLL file."
    )
