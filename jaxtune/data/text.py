"""From a data source to the splits of a text task: rows first, tokens once the model is known."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.data import labels, sources, splits
from jaxtune.data.examples import Examples, tokenize
from jaxtune.data.table import Table
from jaxtune.errors import UserError
from jaxtune.reading import sha256_of
from jaxtune.settings import DataSettings


class TextRows(NamedTuple):
    """One split before tokenization.

    Attributes:
      texts: one or two texts for each row.
      labels: class indices (int32) or targets (float32), [n].
    """

    texts: list[tuple[str, ...]]
    labels: np.ndarray


class TextData(NamedTuple):
    """All splits before tokenization.

    Attributes:
      splits: by name; `train` and `validation` always, `test` where there is one with labels.
      class_names: in the order of the indices; empty for a regression.
      sha256: of the local data files; None for the hub.
      notes: what a person should know of how the splits came about.
    """

    splits: dict[str, TextRows]
    class_names: tuple[str, ...]
    sha256: str | None
    notes: list[str]


def read_text_data(settings: DataSettings, *, regression: bool) -> TextData:
    """Reads, checks and splits the data.

    Every text and label is checked here, before any weight is loaded.

    Args:
      settings: where the data is and how it is split.
      regression: whether the labels are numbers; else they are classes.

    Raises:
      UserError: names the file, the row and the column of what is wrong.
    """
    tables = sources.load_tables(
        settings.path,
        name=settings.name,
        encoding=settings.encoding,
        column_names=settings.column_names,
        required=settings.text_columns,
    )
    digest = _check_digest(tables, settings)
    notes: list[str] = []
    test = tables.get("test")
    if test is not None and not labels.has_targets(test, settings.label_column):
        notes.append(f"{test.source} has no labels: the final scores are those of validation")
        del tables["test"]
    names = () if regression else labels.class_names(tables["train"], settings.label_column)
    parts = {split: _check(table, settings, names) for split, table in tables.items()}
    parts = _complete(parts, settings, bool(names), notes)
    parts = {
        split: _limit(rows, settings, bool(names), training=split == "train")
        for split, rows in parts.items()
    }
    for split in parts:
        if split != "train":
            shared = splits.overlap(parts["train"].texts, parts[split].texts)
            if shared:
                notes.append(
                    f"{shared} of {len(parts[split].texts)} {split} texts are also in train"
                )
    return TextData(parts, names, digest, notes)


def tokenize_splits(
    data: TextData,
    tokenizer: Any,
    max_length: int,
    class_names: Sequence[str],
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Examples]:
    """Tokenizes every split, and says in `data.notes` how many texts were cut.

    Args:
      data: from `read_text_data`.
      tokenizer: from `load_tokenizer`.
      max_length: tokens, special ones included.
      class_names: the model's order of the same classes, which the labels then follow.
      track: wraps the iteration over chunks of texts, to show progress.
    """
    order = np.array([class_names.index(name) for name in data.class_names], np.int32)
    examples = {}
    for split, rows in data.splits.items():
        encoded, cut = tokenize(tokenizer, rows.texts, max_length, track)
        wanted = order[rows.labels] if data.class_names else rows.labels
        examples[split] = encoded._replace(labels=wanted)
        if cut:
            share = f"{cut} of {len(rows.texts)} {split} texts"
            data.notes.append(f"{share} are longer than max_length {max_length} and were cut")
    return examples


def _check(table: Table, settings: DataSettings, names: tuple[str, ...]) -> TextRows:
    texts = labels.text_rows(table, settings.text_columns)
    if names:
        return TextRows(texts, labels.encode_classes(table, settings.label_column, names))
    return TextRows(texts, labels.encode_targets(table, settings.label_column))


def _complete(
    parts: dict[str, TextRows], settings: DataSettings, classes: bool, notes: list[str]
) -> dict[str, TextRows]:
    """Splits off the test and validation rows that the source does not bring.

    Test comes first, so that it is the same whatever the size of validation.
    """
    wanted = {"test": settings.test_size, "validation": settings.validation_size}
    for offset, (split, size) in enumerate(wanted.items()):
        if split in parts or size is None:
            continue
        train = parts["train"]
        kept, held = splits.split_off(
            train.texts,
            train.labels if classes else None,
            size if size < 1 else int(size),
            settings.split_seed + offset,
        )
        parts = parts | {"train": _take(train, kept), split: _take(train, held)}
        notes.append(f"{split}: {len(held)} rows held out of train by seed {settings.split_seed}")
    return parts


def _limit(rows: TextRows, settings: DataSettings, classes: bool, *, training: bool) -> TextRows:
    size = settings.max_train_examples if training else settings.max_eval_examples
    strata = rows.labels if classes else None
    return _take(rows, splits.subsample(len(rows.texts), strata, size, settings.split_seed))


def _take(rows: TextRows, indices: np.ndarray) -> TextRows:
    return TextRows([rows.texts[i] for i in indices], rows.labels[indices])


def _check_digest(tables: dict[str, Table], settings: DataSettings) -> str | None:
    files = sorted({file for table in tables.values() for file in table.files or [table.source]})
    if not all(Path(file).expanduser().is_file() for file in files):
        return None  # the hub's
    found = sha256_of(Path(file).expanduser() for file in files)
    if settings.sha256 is not None and found != settings.sha256:
        raise UserError(
            f"{settings.path}: the data has sha256 {found}, expected {settings.sha256}. Fetch it"
            " again, or correct config.data.sha256."
        )
    return found
