"""Sentences of words with a tag each: how they are read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxtune.core.errors import UserError
from jaxtune.data.sources import conll
from jaxtune.data.sources.bad_rows import BadRowsError
from jaxtune.data.sources.locate import DataSource, load_source
from jaxtune.data.sources.new_rows import open_new, source_columns
from jaxtune.data.sources.reading import NEW_DATA, Reading
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table, bad_row, check_columns, column, num_rows
from jaxtune.data.sources.text_files import lines_of, read_text
from jaxtune.data.text import doubts, labels, tag_spelling, tags, text_tables
from jaxtune.data.text.new_values import BLANK, new_values
from jaxtune.settings.data import ColumnSettings, FileSettings

_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}"
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
)
"""Characters of scripts that put no blanks between words."""

_TAG_REMEDY = "Correct or remove the row, or check config.data.label_column."


class Sentence(NamedTuple):
    """A text and its words.

    Attributes:
      text: as it was, or the words joined by single spaces.
      spans: where each word starts and ends (exclusive), in characters of the text.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def words(self) -> list[str]:
        """The words, at least one."""
        return [self.text[start:end] for start, end in self.spans]


class Tags(NamedTuple):
    """The tags of the words of one sentence.

    Attributes:
      classes: the index of each tag.
      names: the tag of each index.
    """

    classes: Int32[np.ndarray, " w"]
    names: Mapping[int, str]


def from_words(words: Sequence[str]) -> Sentence:
    """The words joined by single spaces."""
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    spans = ((end - len(word), end) for word, end in zip(words, ends.tolist(), strict=True))
    return Sentence(" ".join(words), tuple(spans))


def split_words(text: str) -> Sentence:
    """A text and its words: runs of letters, marks, digits and `_`, and each other character.

    In scripts that put no blanks between words each letter, with its marks, is one.
    """
    return Sentence(text, tuple(span for _, span in _words_pattern().pre_tokenize_str(text)))


@cache
def _words_pattern() -> Any:
    from tokenizers import Regex, pre_tokenizers

    # Unlike Python's, this \w has the marks that many scripts write vowels with.
    words = rf"[{_UNSPACED}]\p{{M}}*|[\w&&[^{_UNSPACED}]]+|[^\w\s]"
    return pre_tokenizers.Split(Regex(words), behavior="removed", invert=True)


def read_new(source: Path | Table, columns: Sequence[str], encoding: str) -> Rows:
    """The sentences of a file, to predict on; one without words has a reason.

    Args:
      source: .txt with one text a line, a CoNLL file, of which only the words are read, or a table
        with a column of strings, which `split_words` splits, or of lists of words.
      columns: the column of a table; () takes `text`, or the only one.
      encoding: of a text file.

    Raises:
      UserError: names the file, the line and the column of what is wrong.
    """
    suffix = "" if isinstance(source, Table) else source.suffix.lower()
    tagged = suffix in (".txt", ".tsv") and _looks_tagged(str(source), encoding)
    table = open_new(source, encoding, "texts or lists of words", words=tagged)
    names = list(table.columns)
    if _is_conll(table):
        name = conll.WORDS
    elif suffix == ".txt":
        (name,) = names
    elif columns:
        name = _only(columns, "--text_columns")
        check_columns(names, columns, table.source, NEW_DATA.columns)
    else:
        name = text_tables.only_column(table, "NAME which holds the texts or lists of words")
    expected = "a text or a list of words"
    values, reasons = new_values(table, (name,), [BLANK], _can_be_split, expected)
    sentences = _sentences(table._replace(columns=values), name, split=True)
    return Rows(sentences, None, reasons=reasons, columns=source_columns(table))


# --- Tables ---------------------------------------------------------------------------------


def _load_tables(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """A table for each split; the columns of CoNLL files get the names that the settings have."""
    names = {conll.WORDS: columns.text_columns[0], conll.TAGS: columns.label_column}

    def named(table: Table) -> Table:
        if not _is_conll(table):
            return table
        return table._replace(
            columns={names.get(k, k): values for k, values in table.columns.items()}
        )

    tables = load_source(source, columns.text_columns, words=True)
    tables = {split: named(table) for split, table in tables.items()}
    name = columns.label_column
    counts = {split: tag_spelling.count(table, name) for split, table in tables.items()}
    spelling = tag_spelling.find_spelling(sum(counts.values(), Counter()))
    return {
        split: _respell(table, name, spelling, counts[split]) for split, table in tables.items()
    }


def _respell(
    table: Table, name: str, spelling: Mapping[str, str], found: Mapping[str, int]
) -> Table:
    """The table with the tags as they are read."""
    if name not in table.columns:
        return table
    notes = (*table.notes, *tag_spelling.notes(table.source, found, spelling))
    if not spelling:
        return table._replace(notes=notes)
    values = [
        [spelling.get(tag, tag) if isinstance(tag, str) else tag for tag in value]
        if isinstance(value, list)
        else value
        for value in table.columns[name]
    ]
    return table._replace(columns=table.columns | {name: values}, notes=notes)


def _has_labels(table: Table, columns: ColumnSettings) -> bool:
    """Whether there is any tag; in tables without, lists hold -1 or nothing."""
    values = table.columns.get(columns.label_column, [])
    flat = [tag for value in values for tag in (value if isinstance(value, list) else [value])]
    return labels.has_targets(Table({"tag": flat}, table.source, range(len(flat)), {}), "tag")


def _class_names(train: Table, columns: ColumnSettings) -> tuple[str, ...]:
    """The tags of the training data, or those that it declares: `O` first, the others sorted.

    They are completed as `tags.complete` says: with both B- and I- of each type, so that I-X in
    test is no error where training has only B-X.

    Raises:
      UserError: malformed words or tags, tags of which only some have a prefix, or too few.
    """
    name = columns.label_column
    flat, sentences = _one_row_a_word(train, columns)
    try:
        return _tag_names(flat, name)
    except BadRowsError as error:
        raise _of_sentences(error, sentences) from None


def _tag_names(flat: Table, name: str) -> tuple[str, ...]:
    found = labels.class_names(flat, name)
    plain = [tag for tag in found if tag != tags.OUTSIDE and not tags.is_prefixed(tag)]
    if not plain or not any(map(tags.is_prefixed, found)):
        return tags.complete(found)
    classes = labels.encode_classes(flat, name, found)
    rows = np.flatnonzero([found[c] in plain for c in classes])
    shown = found[classes[rows[0]]] if len(rows) else plain[0]
    wrong = (
        f"found the tag {shown!r} in the column {name!r}, but expected O or a tag with a prefix"
        f" (B-, I-, E-, S-), as others have. {_TAG_REMEDY}"
    )
    if not len(rows):
        raise UserError(f"{flat.source}: {wrong}")
    raise bad_row(flat, int(rows[0]), wrong)


def _rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    """Sentences and their tags.

    Raises:
      UserError: malformed words or tags, or a tag of a type that training does not have.
    """
    flat, sentences = _one_row_a_word(table, columns)
    try:
        found = labels.class_labels(flat, columns.label_column, names, columns.on_unknown_class)
    except BadRowsError as error:
        raise _of_sentences(error, sentences) from None
    known = dict(enumerate(found.names))
    cuts = np.cumsum([len(sentence.spans) for sentence in sentences])[:-1]
    parts = np.split(found.indices, cuts)
    return Rows(sentences, [Tags(part, known) for part in parts], notes=found.notes)


def _doubts(rows: Rows, names: Sequence[str]) -> list[str]:
    """Notes on the tags that occur; `tags.complete` adds others."""
    counts = np.bincount(np.concatenate([t.classes for t in rows.labels]), minlength=len(names))
    occur = np.flatnonzero(counts)
    return doubts.of_classes([names[c] for c in occur.tolist()], counts[occur])


READER = Reader(_load_tables, _has_labels, _class_names, _rows, what="sentences", doubts=_doubts)
"""A tag for each word: inputs are n `Sentence`, labels a list of n `Tags`."""


def _one_row_a_word(table: Table, columns: ColumnSettings) -> tuple[Table, list[Sentence]]:
    """The tags in the place of each word, checked against the words; and the sentences."""
    name = columns.label_column
    if name not in table.columns and _is_conll(table):
        raise UserError(
            f"{table.source}: found one field on each line, but expected a word first and its tag"
            " last. Give a file with tags."
        )
    sentences = _sentences(table, _only(columns.text_columns, "config.data.text_columns"))
    counts = [len(sentence.spans) for sentence in sentences]
    values = column(table, name)
    for i, (value, count) in enumerate(zip(values, counts, strict=True)):
        if not isinstance(value, list) or len(value) != count:
            found = f"{len(value)} tags" if isinstance(value, list) else f"{value!r:.80}"
            raise bad_row(
                table,
                i,
                f"found {found} in the column {name!r}, but expected a list of"
                f" {count}, one for each word. {_TAG_REMEDY}",
            )
        numbers = [tag for tag in value if isinstance(tag, int | float)]
        if numbers and name not in table.class_names:
            raise bad_row(
                table,
                i,
                f"found the number {numbers[0]!r} in the column {name!r}, which"
                " declares no class names, but expected tags such as B-person. Write their names.",
            )
    lines = table.columns.get(conll.LINES)
    places = [i for i, count in enumerate(counts) for _ in range(count)]
    flat = table._replace(
        columns={name: [tag for value in values for tag in value]},
        rows=[line for part in lines for line in part]
        if lines
        else [table.rows[i] for i in places],
        files=[table.files[i] for i in places] if table.files else (),
    )
    return flat, sentences


def _of_sentences(error: BadRowsError, sentences: Sequence[Sentence]) -> BadRowsError:
    """The sentences of words that were refused."""
    ends = np.cumsum([len(sentence.spans) for sentence in sentences])
    rows = {int(np.searchsorted(ends, i, "right")): text for i, text in error.rows.items()}
    return BadRowsError(rows)


def _sentences(table: Table, name: str, *, split: bool = False) -> list[Sentence]:
    """The sentence of each row; strings are split into words where `split` says so."""
    values = column(table, name)
    return [_sentence(values[i], table, i, name, split) for i in range(num_rows(table))]


def _sentence(value: Any, table: Table, i: int, name: str, split: bool) -> Sentence:
    if isinstance(value, str) and split:
        sentence = split_words(value)
        if sentence.spans:
            return sentence
    if _is_words(value):
        return from_words(value)
    expected = "a list of words that is not empty" + (", or a text with one" if split else "")
    shown = "nothing" if value is None else f"{value!r:.80}"
    raise bad_row(
        table,
        i,
        f"found {shown} in the column {name!r}, but expected {expected}. Fill in"
        " or remove the row, or name another column as the text column.",
    )


def _can_be_split(value: Any) -> bool:
    """Whether it is such a list, or a text."""
    return isinstance(value, str) or _is_words(value)


def _is_words(value: Any) -> bool:
    """Whether it is a list of strings that is not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


def _only(columns: Sequence[str], setting: str) -> str:
    """The one column."""
    if len(columns) != 1:
        raise UserError(
            f"{setting}: found {len(columns)} columns ({', '.join(columns)}), but expected one, of"
            " texts or lists of words."
        )
    return columns[0]


def _is_conll(table: Table) -> bool:
    return conll.LINES in table.columns


def _looks_tagged(path: str, encoding: str) -> bool:
    """Whether a text file to predict on is a CoNLL file, whose words alone are read."""
    reading = Reading(path, FileSettings(encoding=encoding), says=NEW_DATA)
    return conll.looks_tagged(lines_of(read_text(reading)))
