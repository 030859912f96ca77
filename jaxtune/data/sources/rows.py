"""From a data source to checked rows in splits, whatever the task: nothing is tokenized yet."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources import splits
from jaxtune.data.sources.bad_rows import BadRowsError, Skipped, bad_rows
from jaxtune.data.sources.class_sets import ClassSets
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.memory import digest
from jaxtune.data.sources.new_rows import SourceColumns
from jaxtune.data.sources.table import Table, num_rows
from jaxtune.data.sources.table import take as take_rows
from jaxtune.io.json_files import sha256_of
from jaxtune.settings.data import ColumnSettings, DataSettings, SourceSettings, SplitSettings


class Rows(NamedTuple):
    """n rows of one split.

    Attributes:
      inputs: what the model reads, as the task has it: a tuple of one or two texts, a list of
        words, the place of an image.
      labels: what it learns, [n ...]; None where unlabelled.
      keys: rows with equal keys stay on the same side of a split; they are the inputs where None.
      strata: class of each row, of which a split or a subset gets its share; None for no classes.
      reasons: of rows to predict on, why one has no answer; empty where it has one. None where
        each has.
      notes: what a person should know of how they were read.
      places: of each row in its file, from 1; None where that is not known.
      columns: of rows to predict on, what may stand beside the predictions.
    """

    inputs: Sequence[Any]
    labels: Any
    keys: Sequence[Hashable] | None = None
    strata: np.ndarray | None = None
    reasons: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    places: np.ndarray | None = None
    columns: SourceColumns | None = None

    @property
    def own_keys(self) -> Sequence[Hashable]:
        """The keys, or the inputs in their place."""
        return self.inputs if self.keys is None else self.keys


class Data(NamedTuple):
    """All splits.

    Attributes:
      splits: by name; `train` and `validation` always, `test` where there is one with labels.
      class_names: in the order of the indices; empty where there are no classes.
      sha256: of the local data files; None for the hub.
      notes: what a person should know of how the splits came about.
    """

    splits: dict[str, Rows]
    class_names: tuple[str, ...]
    sha256: str | None
    notes: list[str]


def _no_doubts(rows: Rows, class_names: Sequence[str]) -> list[str]:
    """Nothing to say."""
    del rows, class_names
    return []


class Reader(NamedTuple):
    """How a task reads its data; each function raises a UserError that names file and row.

    Attributes:
      load: (source, columns) -> a table for each split.
      has_labels: whether a test table comes with its labels.
      class_names: the classes of the training table; () where there are none.
      rows: (table, columns, class names) -> checked rows.
      what: what a row is called in messages.
      doubts: (training rows, class names) -> notes on what can hardly be meant.
      digest: files -> the SHA-256 of their bytes, one file after the other.
    """

    load: Callable[[DataSource, ColumnSettings], dict[str, Table]]
    has_labels: Callable[[Table, ColumnSettings], bool]
    class_names: Callable[[Table, ColumnSettings], tuple[str, ...]]
    rows: Callable[[Table, ColumnSettings, tuple[str, ...]], Rows]
    what: str = "texts"
    doubts: Callable[[Rows, Sequence[str]], list[str]] = _no_doubts
    digest: Callable[[Sequence[Path]], str] = sha256_of


def read_data(
    settings: DataSettings, reader: Reader, tables: Mapping[str, Table] | None = None
) -> Data:
    """Reads, checks and splits the data; every row is checked before any weight is loaded.

    Args:
      settings: of the data.
      reader: of the task.
      tables: by split, in the place of those that the settings name; None reads these.

    Raises:
      UserError: names the file, the row and the column of what is wrong.
    """
    loaded = reader.load(tables or settings.source, settings.columns)
    digest = _check_digest(loaded, settings.source, tables, reader)
    data = _read_tables(loaded, None, digest, settings, reader)
    data.notes.extend(reader.doubts(data.splits["train"], data.class_names))
    return _split(data, settings.splits, reader.what)


def read_evaluation(
    settings: DataSettings,
    reader: Reader,
    class_names: tuple[str, ...],
    trained_on: SourceSettings | None,
) -> Data:
    """Labelled rows to score a saved model on: all that are given, but those it was trained on.

    Args:
      settings: of the data.
      reader: of the task.
      class_names: those of the model, in its order, which the labels follow.
      trained_on: the data of the model's own run, of which the rows that were held out are taken;
        None where that is not known.

    Returns:
      `validation` and `test` where the source has them or training held them out; else `data`, all
      rows of the source.

    Raises:
      UserError: names the file, the row and the column of what is wrong, such as a class that the
        model does not have.
    """
    tables = reader.load(settings.source, settings.columns)
    digest = _check_digest(tables, settings.source, None, reader)
    if _is_same(settings.source, digest, trained_on):
        data = _read_tables(tables, class_names, digest, settings, reader)
        data = _split(data, settings.splits, reader.what)
        del data.splits["train"]
        return data
    held = {split: table for split, table in tables.items() if split != "train"}
    data = _read_tables(held, class_names, digest, settings, reader)
    if not data.splits:
        held = {"data": tables["train"]}
        data = _read_tables(held, class_names, digest, settings, reader)
    parts = {split: _subset(rows, split, settings.splits) for split, rows in data.splits.items()}
    for split, rows in parts.items():
        found, count = len(rows.inputs), len(data.splits[split].inputs)
        if found < count:
            data.notes.append(f"{split}: {found} of {count} rows, by config.data.max_eval_examples")
    return data._replace(splits=parts)


def take(rows: Rows, indices: np.ndarray) -> Rows:
    """The rows at `indices`, in that order, without `columns`."""

    def pick(values: Any) -> Any:
        if isinstance(values, ClassSets):
            return values.take(indices)
        if values is None or isinstance(values, np.ndarray):
            return None if values is None else values[indices]
        return [values[i] for i in indices]

    whole = ("notes", "columns")
    fields = {name: pick(values) for name, values in rows._asdict().items() if name not in whole}
    return rows._replace(**fields, columns=None)


def _placed(rows: Rows, table: Table) -> Rows:
    """The rows with their places, where each row of the table is one of them."""
    same = len(rows.inputs) == len(table.rows)
    return rows._replace(places=np.array(table.rows, np.int64)) if same else rows


def class_order(data_names: Sequence[str], model_names: Sequence[str]) -> np.ndarray:
    """Where each class of the data stands in the model's order of the same classes, int32 [c]."""
    return np.array([model_names.index(name) for name in data_names], np.int32)


def _read_tables(
    tables: Mapping[str, Table],
    names: tuple[str, ...] | None,
    digest: str | None,
    settings: DataSettings,
    reader: Reader,
) -> Data:
    """The rows of each table, and how they were read; without a test split that has no labels.

    Args:
      tables: by split.
      names: of the classes; None for those of the training table.
      digest: of the files.
      settings: say which columns are read, and what becomes of bad rows.
      reader: of the task.
    """
    columns, skip = settings.columns, settings.source.files.on_bad_row == "skip"
    tables, notes, parts = dict(tables), [], {}
    test = tables.get("test")
    if test is not None and not reader.has_labels(test, columns):
        notes.append(f"{test.source} has no labels: the final scores are those of validation")
        del tables["test"]

    def find_names(table: Table) -> tuple[str, ...]:
        return reader.class_names(table, columns)

    def find_rows(table: Table, names: tuple[str, ...] = ()) -> Rows:
        return reader.rows(table, columns, names)

    if names is None:
        train = tables["train"]
        if skip:
            train = _without_bad(find_names, train)
            train = _without_bad(partial(find_rows, names=find_names(train)), train)
            tables["train"] = train
        known: tuple[str, ...] = _first_refused(find_names, train, (find_rows,))
    else:
        known = names
    for split, table in tables.items():
        check = partial(find_rows, names=known)
        table = _without_bad(check, table) if skip else table
        parts[split] = _placed(_first_refused(check, table, (check,)), table)
        notes += [*table.notes, *(f"{split}: {note}" for note in parts[split].notes)]
        if table.skipped.number:
            notes.append(table.skipped.note(table.source, num_rows(table)))
    return Data(parts, known, digest, notes)


def _split(data: Data, settings: SplitSettings, what: str) -> Data:
    """All splits, of the sizes that are wanted; says what is in train and beside it too."""
    parts = _complete(data.splits, settings, data.notes)
    parts = {split: _subset(rows, split, settings) for split, rows in parts.items()}
    known = parts["train"].own_keys
    for split in parts:
        if split != "train":
            shared = splits.overlap(known, parts[split].own_keys)
            if shared:
                count = len(parts[split].inputs)
                data.notes.append(f"{shared} of {count} {split} {what} are also in train")
    return data._replace(splits=parts)


def _is_same(source: SourceSettings, digest: str | None, other: SourceSettings | None) -> bool:
    """Whether two sources hold the same; files tell by their content, the hub by names."""
    if other is None or digest != other.sha256:
        return False
    return digest is not None or (source.path, source.name) == (other.path, other.name)


def _without_bad(check: Callable[[Table], Any], table: Table) -> Table:
    """The rows that a check does not refuse.

    Raises:
      UserError: it refuses all of them.
    """
    try:
        check(table)
    except BadRowsError:
        size = num_rows(table)
        found = bad_rows(lambda rows: check(take_rows(table, rows)), size)
        first = tuple(found[i] for i in sorted(found)[:5])
        if len(found) == size:
            raise UserError(f"{table.source}: all {size} rows are bad: {first[0]}") from None
        kept = take_rows(table, [i for i in range(size) if i not in found])
        return kept._replace(skipped=table.skipped + Skipped(len(found), first))
    return table


def _first_refused(
    check: Callable[[Table], Any], table: Table, others: Sequence[Callable[[Table], Any]]
) -> Any:
    """What a check gives. Where it refuses a row, no row before that is one that others refuse."""
    try:
        return check(table)
    except BadRowsError as error:
        first = error
    for other in others:
        try:
            other(take_rows(table, range(min(first.rows))))
        except BadRowsError as earlier:
            first = earlier
        except UserError:
            continue  # so few rows may be no data
    raise first


def _complete(parts: dict[str, Rows], settings: SplitSettings, notes: list[str]) -> dict[str, Rows]:
    """Splits off the test and validation rows that the source does not bring.

    Test comes first, so that it is the same whatever the size of validation.
    """
    wanted = {"test": settings.test_size, "validation": settings.validation_size}
    for offset, (split, size) in enumerate(wanted.items()):
        if split in parts or size is None:
            continue
        train = parts["train"]
        kept, held = splits.split_off(
            train.own_keys,
            train.strata,
            size if size < 1 else int(size),
            settings.split_seed + offset,
        )
        parts = parts | {"train": take(train, kept), split: take(train, held)}
        notes.append(f"{split}: {len(held)} rows held out of train by seed {settings.split_seed}")
    return parts


def _subset(rows: Rows, split: str, settings: SplitSettings) -> Rows:
    size = settings.max_train_examples if split == "train" else settings.max_eval_examples
    return take(rows, splits.subsample(len(rows.inputs), rows.strata, size, settings.split_seed))


def _check_digest(
    tables: dict[str, Table],
    source: SourceSettings,
    given: Mapping[str, Table] | None,
    reader: Reader,
) -> str | None:
    """The sha256 of what was read; None for the hub's."""
    if given is not None:
        return _compare(digest(given), source)
    files = sorted({file for table in tables.values() for file in table.files or [table.source]})
    paths = [os.path.expanduser(file) for file in files]
    if not all(map(os.path.isfile, paths)):
        return None  # the hub's
    return _compare(reader.digest([*map(Path, paths)]), source)


def _compare(found: str, source: SourceSettings) -> str:
    if source.sha256 is not None and found != source.sha256:
        raise UserError(
            f"{source.path}: the data has sha256 {found}, expected {source.sha256}. Fetch it"
            " again, or correct config.data.sha256."
        )
    return found
