"""Tables whose rows are groups of texts: anchor, positive, negatives; or pairs with a score."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.batching.groups import groups_of
from jaxtune.data.sources import locate
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table, bad_row, check_columns, column
from jaxtune.data.sources.table import shown as shown_names
from jaxtune.data.text import doubts, labels, text_tables
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.grouped import GroupedExamples
from jaxtune.data.text.text_tables import Track
from jaxtune.data.text.token_cache import tokenize_once
from jaxtune.data.text.tokens import tokenize
from jaxtune.settings.data import ColumnSettings, DataSettings

PAIRS = (
    ("anchor", "positive"),
    ("sentence1", "sentence2"),
    ("query", "positive"),
    ("question", "answer"),
    ("query", "answer"),
    ("premise", "hypothesis"),
)
"""Names by which the first two texts of a row are found where nobody names columns."""

_SCORES = ("score", "similarity_score")
_UNSET = ColumnSettings()


def group_columns(table: Table, columns: ColumnSettings) -> tuple[tuple[str, ...], str | None]:
    """The columns of the texts of each row, and that of its score.

    Columns whose names begin with `negative` follow, in the order of the table. A score is read
    where there are two columns of texts, from `label_column` or one called `score`.

    Args:
      table: of any split.
      columns: name them, or are as they come.

    Returns:
      (anchor, positive, negatives; the score's column, or None).

    Raises:
      UserError: no two columns by any of these names, or a named one that is not there.
    """
    texts, known = columns.text_columns, list(table.columns)
    if texts == _UNSET.text_columns:
        pair = next((pair for pair in PAIRS if {*pair} <= {*known}), None)
        if pair is None:
            raise UserError(
                f"{table.source}: found the columns {shown_names(known)}, but expected"
                f" {' or '.join(', '.join(pair) for pair in PAIRS[:2])}."
                f"{nearest(PAIRS[0][0], known)} Set"
                " config.data.text_columns=ANCHOR,POSITIVE and, where there are any, columns of"
                " negatives behind these."
            )
        texts = (*pair, *(name for name in known if name.startswith("negative")))
    if len(texts) < 2 or len({*texts}) < len(texts):
        raise UserError(
            f"config.data.text_columns is {texts}: expected an anchor and a positive at least, each"
            " column once."
        )
    check_columns(known, texts, table.source)
    if len(texts) > 2:
        return texts, None
    if columns.label_column != _UNSET.label_column:
        return texts, columns.label_column
    names = (columns.label_column, *_SCORES)
    return texts, next((n for n in names if n in known and n not in texts), None)


def load_tables(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """A table for each split."""
    texts = columns.text_columns
    return locate.load_source(source, () if texts == _UNSET.text_columns else texts)


def _has_labels(table: Table, columns: ColumnSettings) -> bool:
    """Whether a test split has its scores, where there are any to have."""
    _, score = group_columns(table, columns)
    return score is None or labels.has_targets(table, score)


def _rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    """Rows whose inputs are the texts of each, and whose labels are scores, float32 [n]."""
    del names
    texts, score = group_columns(table, columns)
    pairs = labels.text_rows(table, texts[:2])
    found: list[tuple[str, ...]] = [*pairs]
    for name in texts[2:]:
        values = column(table, name)
        found = [(*row, *texts_of(table, i, name, values[i])) for i, row in enumerate(found)]
    return Rows(found, None if score is None else labels.encode_targets(table, score))


def texts_of(table: Table, i: int, name: str, value: Any) -> list[str]:
    """The texts of a field: one, a list of them, the JSON of a list, or none."""
    texts = [] if labels.is_blank(value) else [value] if isinstance(value, str) else value
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            read = None
        if isinstance(read, list) and (not read or isinstance(read[0], str)):
            texts = read  # of anything else it is a text in brackets
    texts = texts.tolist() if isinstance(texts, np.ndarray) else texts
    if not isinstance(texts, list | tuple) or not all(
        isinstance(text, str) and text.strip() for text in texts
    ):
        raise bad_row(
            table,
            i,
            f"found {labels.shown(value)} in the column {name!r}, but expected a text that is not"
            " empty, a list of such texts, or nothing. Correct or remove the row, or check"
            " config.data.text_columns.",
        )
    return [*texts]


def _doubts(rows: Rows, names: Sequence[str]) -> list[str]:
    del names
    found = doubts.of_texts([row[:2] for row in rows.inputs])
    pairs = [row for row in rows.inputs if row[0] == row[1]]
    if pairs and rows.labels is None:
        told = f"{len(pairs)} of {len(rows.inputs)} rows have the same text as anchor and positive"
        found.append(f"{told}, such as {pairs[0][0][:40]!r}: nothing is learnt from them")
    return found


GROUPS = Reader(
    load_tables, _has_labels, lambda *_: (), _rows, what="groups of texts", doubts=_doubts
)
"""Groups of two texts or more: labels float32 [n], the score of each, or None."""


def encode(
    rows: Rows,
    tokenizer: Any,
    settings: DataSettings,
    track: Track = iter,
    tokenize: Any = tokenize,
) -> tuple[GroupedExamples | Examples, list[str]]:
    """Tokenizes each text by itself, behind its prompt.

    Args:
      rows: groups, as `GROUPS` reads them; or single texts to predict on, which get no prompt.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length`, `token_dropout` and the prompts are read.
      track: shows progress.
      tokenize: as `tokens.tokenize`.

    Returns:
      (groups of texts, or single ones where the rows are that; notes on how many were cut).
    """
    own = partial(text_tables.encode, tokenizer=tokenizer, settings=settings, track=track)
    if all(len(row) == 1 for row in rows.inputs):
        return own(rows, tokenize=tokenize)
    query, document = settings.tokens.query_prompt or "", settings.tokens.document_prompt or ""
    sizes = np.array([len(row) for row in rows.inputs], np.int64)
    texts = [
        (f"{document if place else query}{text}",)
        for row in rows.inputs
        for place, text in enumerate(row)
    ]
    scores = None if rows.labels is None else np.repeat(rows.labels, sizes)
    examples, notes = own(Rows(texts, scores), tokenize=tokenize)
    return GroupedExamples(examples, groups_of(sizes)), notes


def once(folder: Path) -> dict[str, Any]:
    """What of a task's data tokenizes no text a second time; the tokens are kept in `folder`."""
    return {"encode": partial(encode, tokenize=partial(tokenize_once, folder))}


def read_new(source: Path | Table, columns: Sequence[str], encoding: str) -> Rows:
    """One text for each row of a file, to embed; see `text_tables.read_new`.

    Raises:
      UserError: several columns; or as there.
    """
    if len(columns) > 1:
        raise UserError(
            f"the columns {', '.join(columns)} are several, but each text is embedded by itself:"
            " expected one, --text_columns=NAME."
        )
    return text_tables.read_new(source, columns, encoding)
