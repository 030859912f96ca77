"""Tables of texts and pairs of texts: how they are read, and how they become tokens."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources import locate
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.new_rows import open_lines, open_new, source_columns
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table
from jaxtune.data.text import doubts, label_sets, labels, no_label
from jaxtune.data.text.examples import Examples, Transform
from jaxtune.data.text.new_values import new_texts
from jaxtune.data.text.token_cache import tokenize_once
from jaxtune.data.text.token_dropout import token_dropout
from jaxtune.data.text.tokens import Tokens, tokenize
from jaxtune.settings.data import ColumnSettings, DataSettings

Track = Callable[[Iterable[int]], Iterable[int]]
"""Wraps an iteration over chunks of rows, to show progress."""


def load_tables(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """A table for each split, each with the text columns."""
    return locate.load_source(source, columns.text_columns, label=columns.label_column)


def _has_labels(table: Table, columns: ColumnSettings) -> bool:
    names = columns.label_columns or (columns.label_column,)
    return all(labels.has_targets(table, name) for name in names)


def _load_labelled(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """As `load_tables`, without the rows of which `no_label` says that they have no label."""
    tables = load_tables(source, columns)
    if not columns.no_label:
        return tables
    return {split: no_label.labelled(table, columns) for split, table in tables.items()}


def _has_classes(table: Table, columns: ColumnSettings) -> bool:
    return _has_labels(table, columns) and not no_label.are_withheld(table, columns)


def _class_names(table: Table, columns: ColumnSettings) -> tuple[str, ...]:
    return labels.class_names(table, columns.label_column)


def _class_rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    texts = labels.text_rows(table, columns.text_columns)
    found = labels.class_labels(table, columns.label_column, names, columns.on_unknown_class)
    return Rows(texts, found.indices, strata=found.indices, notes=found.notes)


def _class_doubts(rows: Rows, names: Sequence[str]) -> list[str]:
    counts = np.bincount(rows.labels, minlength=len(names))
    return [*doubts.of_classes(names, counts), *doubts.of_texts(rows.inputs)]


def _load_sets(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    tables = load_tables(source, columns)
    return tables if columns.label_columns else label_sets.read_sets(tables, columns)


def _set_names(table: Table, columns: ColumnSettings) -> tuple[str, ...]:
    return columns.label_columns or label_sets.set_names(table, columns.label_column)


def _set_rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    texts = labels.text_rows(table, columns.text_columns)
    if columns.label_columns:
        return Rows(texts, label_sets.encode_columns(table, columns.label_columns, names))
    found = label_sets.encode_sets(table, columns.label_column, names, columns.on_unknown_class)
    return Rows(texts, found.sets, notes=found.notes)


def _set_doubts(rows: Rows, names: Sequence[str]) -> list[str]:
    return [*doubts.of_classes(names, rows.labels.counts), *doubts.of_texts(rows.inputs)]


def _target_rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    del names
    label_columns = columns.label_columns or (columns.label_column,)
    targets = [labels.encode_targets(table, name) for name in label_columns]
    texts = labels.text_rows(table, columns.text_columns)
    return Rows(texts, np.stack(targets, axis=1))


def _target_doubts(rows: Rows, names: Sequence[str]) -> list[str]:
    del names
    return doubts.of_texts(rows.inputs)


CLASSES = Reader(_load_labelled, _has_classes, _class_names, _class_rows, doubts=_class_doubts)
"""One class a row: labels int32 [n]."""

CLASS_SETS = Reader(_load_sets, _has_labels, _set_names, _set_rows, doubts=_set_doubts)
"""Any number of classes a row: labels `ClassSets` of n rows."""

TARGETS = Reader(load_tables, _has_labels, lambda *_: (), _target_rows, doubts=_target_doubts)
"""Numbers: labels float32 [n k], one column for each of k targets."""


def encode(
    rows: Rows,
    tokenizer: Any,
    settings: DataSettings,
    track: Track = iter,
    tokenize: Callable[..., tuple[Tokens, int]] = tokenize,
) -> tuple[Examples, list[str]]:
    """Tokenizes texts or pairs, and says how many were cut.

    Args:
      rows: with labels or without.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length` and `token_dropout` are read.
      track: shows progress.
      tokenize: as `tokens.tokenize`.

    Raises:
      UserError: token dropout with a tokenizer that has no token to put in the place.
    """
    length, rate = settings.tokens.max_length, settings.tokens.token_dropout
    found, cut = tokenize(tokenizer, rows.inputs, length, track)
    notes = []
    if cut:
        share = f"{cut} of {len(rows.inputs)}"
        notes.append(f"{share} texts are longer than max_length {length} and were cut")
    transform = _dropout(tokenizer, rate) if rate else None
    return Examples(found, rows.labels, transform=transform), notes


def once(folder: Path) -> dict[str, Any]:
    """What of a task's data tokenizes no text a second time; the tokens are kept in `folder`."""
    return {"encode": partial(encode, tokenize=partial(tokenize_once, folder))}


def _dropout(tokenizer: Any, rate: float) -> Transform:
    """Token dropout with the tokenizer's own mask, or its unknown word where it has none."""
    ids = (tokenizer.mask_token_id, tokenizer.unk_token_id)
    hidden = next((token for token in ids if token is not None), None)
    if hidden is None:
        raise UserError(
            "config.data.token_dropout needs a tokenizer with a mask token or one for unknown"
            " words, which this model's has not: set it to 0."
        )
    return token_dropout(rate, hidden, tokenizer.all_special_ids)


def read_new(source: Path | Table, columns: Sequence[str], encoding: str) -> Rows:
    """One or two texts for each row of a file, to predict on; one that is none has a reason.

    Args:
      source: .txt with one text a line, or a table that `data.sources.files.read_file` reads,
        or one in memory.
      columns: text columns of a table; () takes `text`, or the only column.
      encoding: of the file.

    Raises:
      UserError: names the file, the line and the column of what is wrong.
    """
    if isinstance(source, Path) and source.suffix == ".txt" and not source.is_dir():
        table, columns = open_lines(source, encoding, "text", "one text"), ("text",)
    else:
        table = open_new(source, encoding, "texts", columns)
        told = "NAME, or NAME,NAME for pairs, which hold the text"
        columns = columns or (only_column(table, told),)
    texts, reasons = new_texts(table, columns)
    return Rows(texts, None, reasons=reasons, columns=source_columns(table))


def only_column(table: Table, expected: str) -> str:
    """The column to predict on where none is named: `text`, or the only one.

    Args:
      table: of a file of new data.
      expected: what follows `--text_columns=` in the message.

    Raises:
      UserError: several columns, none of them called text.
    """
    names = list(table.columns)
    if "text" in names:
        return "text"
    if len(names) > 1:
        raise UserError(
            f"{table.source} has the columns {', '.join(names)}: say with"
            f" --text_columns={expected}."
        )
    return names[0]
