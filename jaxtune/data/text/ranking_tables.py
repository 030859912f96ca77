"""Tables of queries and their passages: a row for each passage with its label, or one for a query.

A row of the one kind has a query, a passage, and how relevant it is; rows of a query are put
together. A row of the other kind has a query, what is relevant to it, and what is not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources import locate
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table, bad_row, check_columns, num_rows
from jaxtune.data.sources.table import shown as shown_names
from jaxtune.data.text import doubts, labels, text_tables
from jaxtune.data.text.group_tables import texts_of
from jaxtune.settings.data import ColumnSettings

_PAIRS = (
    *(("query", "passage"), ("query", "document"), ("query", "text"), ("query", "response")),
    *(("question", "passage"), ("question", "answer"), ("sentence1", "sentence2")),
)
_RELEVANT = (("query", "positive"), ("anchor", "positive"), ("question", "positive"))
_LABELS = ("score", "relevance")
_UNSET = ColumnSettings()


class Columns(NamedTuple):
    """Of a table of queries and passages.

    Attributes:
      texts: of the query; of passages, or of relevant ones and then of others.
      label: how relevant a passage is; None where its column says that.
    """

    texts: tuple[str, ...]
    label: str | None


def find_columns(table: Table, columns: ColumnSettings) -> Columns:
    """The columns of queries and passages.

    Args:
      table: of any split.
      columns: name them, or are as they come.

    Raises:
      UserError: no such columns, or nothing that says what is not relevant.
    """
    known, texts = list(table.columns), columns.text_columns
    names = (columns.label_column, *_LABELS)
    label = next((n for n in names if n in known and n not in texts), None)
    if columns.label_column != _UNSET.label_column:
        label = columns.label_column
    if texts == _UNSET.text_columns:
        texts = _found(known, label)
    if len(texts) < 2 or len({*texts}) < len(texts):
        raise UserError(
            f"{table.source}: found the columns {shown_names(known)}, but expected query, passage"
            f" and label, or query, positive and negative.{nearest('query', known)} Set"
            " config.data.text_columns=QUERY,PASSAGE, or QUERY,POSITIVE,NEGATIVE, ..., and for"
            " the first config.data.label_column."
        )
    check_columns(known, texts, table.source)
    if len(texts) > 2:
        return Columns(texts, None)
    if label is None:
        raise UserError(
            f"{table.source}: the columns {', '.join(texts)} are a query and a passage, but there"
            " is none that says how relevant the passage is: expected one of numbers,"
            f" config.data.label_column, or {' or '.join(names)}; or a third column of texts, of"
            " passages that are not relevant."
        )
    check_columns(known, (label,), table.source)
    return Columns(texts, label)


def _found(known: list[str], label: str | None) -> tuple[str, ...]:
    others = [name for name in known if name.startswith("negative")]
    relevant = next((pair for pair in _RELEVANT if {*pair} <= {*known}), None)
    if relevant and others:
        return (*relevant, *others)
    pair = next((pair for pair in _PAIRS if {*pair} <= {*known}), None)
    return pair if pair and label else ()


def load_tables(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """A table for each split."""
    texts = columns.text_columns
    return locate.load_source(source, () if texts == _UNSET.text_columns else texts)


def _has_labels(table: Table, columns: ColumnSettings) -> bool:
    label = find_columns(table, columns).label
    return label is None or _is_list(table.columns[label][:1]) or labels.has_targets(table, label)


def _is_list(values: Sequence[Any]) -> bool:
    return bool(values) and isinstance(values[0], list | tuple | np.ndarray)


class _Judged(NamedTuple):
    """The passages of a row, and how relevant each is."""

    passages: list[str]
    relevance: list[float]


def _rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    """Rows whose inputs are `Pairs`, a query each, and whose labels are float32."""
    del names
    own = find_columns(table, columns)
    groups: dict[Any, tuple[list[tuple[str, str]], list[float]]] = {}
    for i in range(num_rows(table)):
        query = table.columns[own.texts[0]][i]
        if not isinstance(query, str) or not query.strip():
            raise _bad(table, i, own.texts[0], query, "a text that is not empty")
        found = _of_columns(table, i, own) if own.label is None else _labelled(table, i, own)
        pairs, relevance = groups.setdefault(_key(table, i, columns, query), ([], []))
        pairs += [(query, passage) for passage in found.passages]
        relevance += found.relevance
    inputs = [tuple(pairs) for pairs, _ in groups.values()]
    return Rows(
        inputs,
        [np.array(relevance, np.float32) for _, relevance in groups.values()],
        keys=[pairs[0][0] for pairs in inputs],
        notes=_notes(groups.values(), num_rows(table)),
    )


def _key(table: Table, i: int, columns: ColumnSettings, query: str) -> Any:
    """What rows of one query have in common."""
    if columns.group_column is None:
        return query
    check_columns(table.columns, (columns.group_column,), table.source)
    value = table.columns[columns.group_column][i]
    if type(value) not in (str, int) or not str(value).strip():
        raise bad_row(
            table,
            i,
            f"found {labels.shown(value)} in the column {columns.group_column!r}, but expected what"
            " names a query: a text or a whole number. Correct the row, or check"
            " config.data.group_column.",
        )
    return value


def _of_columns(table: Table, i: int, own: Columns) -> _Judged:
    """The passages of a row whose columns say what is relevant."""
    found = _Judged([], [])
    for place, name in enumerate(own.texts[1:]):
        texts = texts_of(table, i, name, table.columns[name][i])
        if not place and not texts:
            raise _bad(table, i, name, table.columns[name][i], "what is relevant to the query")
        found.passages.extend(texts)
        found.relevance.extend([0.0 if place else 1.0] * len(texts))
    return found


def _labelled(table: Table, i: int, own: Columns) -> _Judged:
    """The passage of a row, or a list of them, with as many labels."""
    assert own.label is not None
    name, value, label = own.texts[1], table.columns[own.texts[1]][i], table.columns[own.label][i]
    passages = texts_of(table, i, name, value)
    if not passages:
        raise _bad(table, i, name, value, "a text that is not empty")
    many = [*label] if _is_list([label]) else [label]
    if len(many) != len(passages):
        wrong = f"found {len(passages)} passages in the column {name!r} and {len(many)} labels in"
        raise bad_row(table, i, f"{wrong} {own.label!r}, but expected as many. Correct the row.")
    numbers = [labels.number_of(x.item() if isinstance(x, np.generic) else x) for x in many]
    if not all(0 <= number <= float(np.finfo(np.float32).max) for number in numbers):
        raise bad_row(
            table,
            i,
            f"found {labels.shown(label)} in the column {own.label!r}, but expected how relevant"
            " the passage is: a number, 0 where it is not. Correct or remove the row, or check"
            " config.data.label_column.",
        )
    return _Judged(passages, numbers)


def _bad(table: Table, i: int, name: str, value: Any, expected: str) -> UserError:
    wrong = f"found {labels.shown(value)} in the column {name!r}, but expected {expected}."
    return bad_row(
        table, i, f"{wrong} Fill in or remove the row, or check config.data.text_columns."
    )


def _notes(groups: Any, count: int) -> tuple[str, ...]:
    found = [relevance for _, relevance in groups]
    passages = sum(map(len, found))
    notes = [f"{len(found)} queries with {passages} passages, of {count} rows"]
    without = sum(max(relevance) <= 0 for relevance in found)
    if without:
        told = f"{without} of {len(found)} queries have no relevant passage"
        notes.append(f"{told}: scores count 0 for each, and a listwise loss leaves them out")
    return tuple(notes)


def _doubts(rows: Rows, names: Sequence[str]) -> list[str]:
    """Notes; of rows that nothing can be learnt from, an error."""
    del names
    if not any(label.max() > 0 for label in rows.labels):
        raise UserError(
            f"data[train]: no passage of {len(rows.inputs)} queries is relevant, all labels are 0:"
            " expected some above it. Check config.data.label_column."
        )
    found = doubts.of_texts([group[0] for group in rows.inputs])
    if all(len(group) == 1 for group in rows.inputs):
        found.append("each query has one passage: nothing is ranked, and every score is of one")
    return found


QUERIES = Reader(load_tables, _has_labels, lambda *_: (), _rows, what="queries", doubts=_doubts)
"""A query and its passages a row: labels a float32 array for each, how relevant they are."""


def read_new(source: Path | Table, columns: Sequence[str], encoding: str) -> Rows:
    """A query and a passage for each row, to score; see `text_tables.read_new`.

    Args:
      source: as there.
      columns: of the query and the passage; those of training where there are more of them, or ()
        finds `query` and `passage` by the usual names.
      encoding: of a file.

    Raises:
      UserError: no such columns; or as there.
    """
    if len(columns) == 2:
        return text_tables.read_new(source, columns, encoding)
    table = text_tables.open_new(source, encoding, "queries and passages")
    known = list(table.columns)
    pair = next((pair for pair in _PAIRS if {*pair} <= {*known}), None)
    if pair is None and len(known) == 2:
        pair = tuple(known)
    if pair is None:
        raise UserError(
            f"{table.source} has the columns {shown_names(known)}: say with"
            " --text_columns=QUERY,PASSAGE which hold them."
        )
    return text_tables.read_new(source, pair, encoding)
