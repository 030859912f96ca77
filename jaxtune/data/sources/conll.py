"""CoNLL files: a word a line with its tag, and a blank line between sentences."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import sift, sound_texts
from jaxtune.data.sources.reading import Reading
from jaxtune.data.sources.table import Table
from jaxtune.data.sources.text_files import is_encodable

SUFFIXES = (".conll", ".conllu", ".bio", ".iob", ".iob2", ".annotated")
WORDS, TAGS, LINES = "words", "tags", "the lines of the words"
"""The columns of such a table; no other has the last."""

_DOCSTART = "-DOCSTART-"
_EXPECTED = (
    "a word first and its tag last, with tabs or spaces between them, the same number of fields on"
    " every line, and a blank line after each sentence"
)
_TAG = re.compile(r"[O0o_-]|[BIESLUM][-_].+", re.DOTALL)
_INDEX = re.compile(r"\d+([-.]\d+)?", re.ASCII)
_CONLLU = 10  # its fields: number, form, lemma, universal tag, own tag, ...


class Shape(NamedTuple):
    """What the lines of a file look like.

    Attributes:
      first: the 1-based line and the number of fields of the first line that is as most are.
      word: index of the field with the word.
      tag: of its tag; None where there are no tags.
      indexed: whether the first field numbers the words of a sentence.
    """

    first: tuple[int, int]
    word: int
    tag: int | None
    indexed: bool


def to_table(lines: Sequence[str], reading: Reading) -> Table:
    """One row for each sentence.

    A line with a tab is split at tabs, any other at spaces. Lines of white space and those that
    start with `-DOCSTART-` end a sentence and are no part of one. A line that starts with `#` is a
    comment where it stands before a sentence and has another number of fields than most lines, or
    where words are numbered; else `#` is a word. Of numbered words, those that join others (`3-4`)
    or stand in no text (`3.1`) are left out.

    Args:
      lines: of the file, without line ends.
      reading: of the file, with the columns of words and tags where these are set.

    Returns:
      Columns `words` and `tags`, lists of strings, and the line of each word; `tags` is missing
      where every line has one field. A row's place is the line of its first word.

    Raises:
      UserError: a line with another number of fields than most, or without a word or a tag.
    """
    fields = [_fields(line) for line in lines]
    shape = _find_shape(lines, fields, reading)
    if shape is None:
        return Table({WORDS: [], LINES: []}, reading.path, [], {})
    records = _sentences(lines, fields, shape, reading)
    if not is_encodable("\n".join(lines)):
        records = sound_texts(records, reading.path, reading.settings.encoding)
    good, skipped = sift(records, reading.on_bad_row, ([], [], []))
    columns: dict[str, list[Any]] = {WORDS: [words for _, (words, _, _) in good]}
    if shape.tag is not None:
        columns[TAGS] = [tags for _, (_, tags, _) in good]
    columns[LINES] = [places for _, (_, _, places) in good]
    notes = tuple(_notes(shape, fields, reading))
    return Table(
        columns, reading.path, [line for line, _ in good], {}, notes=notes, skipped=skipped
    )


def looks_tagged(lines: Sequence[str]) -> bool:
    """Whether all lines have as many fields, two or more, and one of the columns holds BIO tags."""
    found = [fields for line in lines[:2000] if (fields := _fields(line))]
    found = [fields for fields in found if fields[0] != _DOCSTART and fields[0] != "#"]
    counts = {len(fields) for fields in found}
    if len(counts) != 1 or counts == {1}:
        return False
    return any(_are_tags(values) for values in zip(*found, strict=True))


def _fields(content: str) -> list[str]:
    """The fields of a line, none of a blank one; a no-break space is part of a word."""
    content = content.rstrip(" \t")
    if not content:
        return []
    if "\t" in content:
        return [field.strip(" ") for field in content.split("\t")]
    return re.split(" +", content.lstrip(" "))


def _find_shape(
    lines: Sequence[str], fields: Sequence[list[str]], reading: Reading
) -> Shape | None:
    """None where there are no words."""
    rows = [i for i, part in enumerate(fields) if part and part[0] != _DOCSTART]
    if not rows:
        return None
    plain = [i for i in rows if not lines[i].startswith("#")] or rows
    count = Counter(len(fields[i]) for i in plain).most_common(1)[0][0]
    usual = [i for i in plain if len(fields[i]) == count]
    first = (usual[0] + 1, count)
    indexed = count > 1 and _are_numbered(fields, usual)
    given = reading.settings.conll_columns
    if given:
        word, tag = _given(given, count, reading)
    else:
        word, tag = _columns([fields[i] for i in usual], indexed)
    return Shape(first, word, tag, indexed)


def _given(columns: Sequence[int], count: int, reading: Reading) -> tuple[int, int | None]:
    good = len(columns) in (1, 2) and all(1 <= abs(column) <= count for column in columns)
    if not good:
        raise UserError(
            f"{reading.path}: config.data.conll_columns is {', '.join(map(str, columns))}, but"
            f" expected the column of the words and that of the tags, each from 1 to {count}."
        )
    places = [column - 1 if column > 0 else count + column for column in columns]
    return places[0], places[1] if len(places) > 1 else None


def _are_numbered(fields: Sequence[list[str]], usual: Sequence[int]) -> bool:
    """Whether the first field counts the words of each sentence from 1 (or 0)."""
    before = None
    for i in usual:
        number = fields[i][0]
        starts = before is None or i != before + 1
        if not _INDEX.fullmatch(number) or (starts and not re.match("[01](?![0-9])", number)):
            return False
        before = i
    return len(usual) > 1


def _columns(rows: Sequence[list[str]], indexed: bool) -> tuple[int, int | None]:
    """The indices of the words and of the tags, as published files have them."""
    count = len(rows[0])
    if indexed and count == _CONLLU:
        return 1, 3
    word = 1 if indexed else 0
    if count == word + 1:
        return word, None
    columns = [*zip(*rows, strict=True)]
    if count == 2 and _are_tags(columns[0]) and not _are_tags(columns[1]):
        return 1, 0  # as the MIT corpora
    nested = indexed and all(map(_are_tags, columns[2:]))  # as GermEval: outer ones come first
    return word, 2 if nested else count - 1


def _are_tags(values: Sequence[str]) -> bool:
    """Whether a column has only tags with a prefix, and such for outside."""
    found = {*values}
    return all(map(_TAG.fullmatch, found)) and any(len(value) > 1 for value in found)


def _sentences(
    lines: Sequence[str], fields: Sequence[list[str]], shape: Shape, reading: Reading
) -> Iterator[tuple[int, tuple[list[str], list[str], list[int]] | UserError]]:
    """The line of the first word of each; its words, tags and lines, or the first fault in it."""
    words: list[str] = []
    tags: list[str] = []
    places: list[int] = []
    fault: UserError | None = None
    for i, part in enumerate([*fields, []]):
        inside = bool(places) or fault is not None
        if not part or part[0] == _DOCSTART:
            if inside:
                yield (places or [i])[0], fault or (words, tags, places)
            words, tags, places, fault = [], [], [], None
        elif fault is not None or _is_comment(lines[i], part, shape, inside):
            continue
        elif not _is_whole(part, shape):
            fault = _odd_line(reading.path, i + 1, lines, shape.first)
        elif not shape.indexed or part[0].isdigit():
            words.append(part[shape.word])
            tags.append("" if shape.tag is None else part[shape.tag])
            places.append(i + 1)


def _is_comment(line: str, fields: list[str], shape: Shape, inside: bool) -> bool:
    return not inside and line.startswith("#") and (shape.indexed or len(fields) != shape.first[1])


def _is_whole(fields: list[str], shape: Shape) -> bool:
    """Whether a line has as many fields as most, and a word and a tag among them."""
    fits = len(fields) == shape.first[1]
    return fits and bool(fields[shape.word]) and (shape.tag is None or bool(fields[shape.tag]))


def _notes(shape: Shape, fields: Sequence[list[str]], reading: Reading) -> Iterator[str]:
    """Which columns were taken, where that is not the first and the last; and doubts."""
    count = shape.first[1]
    if reading.settings.conll_columns or shape.tag is None:
        return
    if (shape.word, shape.tag) != (0, count - 1):
        yield (
            f"{reading.path}: of {count} columns the words are {shape.word + 1} and the tags"
            f" {shape.tag + 1}; config.data.conll_columns names others"
        )
        return
    rows = [part for part in fields if len(part) == count]
    first, last = (len({part[k] for part in rows}) for k in (0, -1))
    if last > 20 * first or (last == 1 and count > 2):
        yield (
            f"{reading.path}: the last of {count} columns has {last} different values, the first"
            f" {first}; if the tags are not last, set config.data.conll_columns"
        )


def _odd_line(path: str, line: int, lines: Sequence[str], first: tuple[int, int]) -> UserError:
    number, count = first
    fields = f"{count} field{'s' if count > 1 else ''}"
    start = f", as line {number} has ({lines[number - 1][:40]!r})" if line != number else ""
    return UserError(
        f"{path} line {line}: found {lines[line - 1][:80]!r}, but expected {fields}{start}:"
        f" {_EXPECTED}. Correct or remove the line that differs. If the file has another format"
        " than CoNLL, set config.data.format."
    )
