"""From a data source to checked rows in splits, whatever the task: nothing is tokenized yet."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources import splits
from jaxtune.data.sources.bad_rows import BadRowsError, OnBadRow, Skipped, bad_rows
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.memory import digest
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
    """

    inputs: Sequence[Any]
    labels: Any
    keys: Sequence[Hashable] | None = None
    strata: np.ndarray | None = None

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


class Reader(NamedTuple):
    """How a task reads its data; each function raises a UserError that names file and row.

    Attributes:
      load: (source, columns) -> a table for each split.
      has_labels: whether a test table comes with its labels.
      class_names: the classes of the training table; () where there are none.
      rows: (table, columns, class names) -> checked rows.
      what: what a row is called in messages.
    """

    load: Callable[[DataSource, ColumnSettings], dict[str, Table]]
    has_labels: Callable[[Table, ColumnSettings], bool]
    class_names: Callable[[Table, ColumnSettings], tuple[str, ...]]
    rows: Callable[[Table, ColumnSettings, tuple[str, ...]], Rows]
    what: str = "texts"


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
    columns = settings.columns
    given, tables = tables, reader.load(tables or settings.source, columns)
    digest = _check_digest(tables, settings.source, given)
    notes: list[str] = []
    test = tables.get("test")
    if test is not None and not reader.has_labels(test, columns):
        notes.append(f"{test.source} has no labels: the final scores are those of validation")
        del tables["test"]
    names, parts, said = _checked(tables, reader, columns, settings.source.files.on_bad_row)
    notes += said
    parts = _complete(parts, settings.splits, notes)
    parts = {split: _subset(rows, split, settings.splits) for split, rows in parts.items()}
    known = parts["train"].own_keys
    for split in parts:
        if split != "train":
            shared = splits.overlap(known, parts[split].own_keys)
            if shared:
                count = len(parts[split].inputs)
                notes.append(f"{shared} of {count} {split} {reader.what} are also in train")
    return Data(parts, names, digest, notes)


def take(rows: Rows, indices: np.ndarray) -> Rows:
    """The rows at `indices`, in that order."""

    def pick(values: Any) -> Any:
        if values is None or isinstance(values, np.ndarray):
            return None if values is None else values[indices]
        return [values[i] for i in indices]

    return Rows(*map(pick, rows))


def class_order(data_names: Sequence[str], model_names: Sequence[str]) -> np.ndarray:
    """Where each class of the data stands in the model's order of the same classes, int32 [c]."""
    return np.array([model_names.index(name) for name in data_names], np.int32)


def _checked(
    tables: Mapping[str, Table], reader: Reader, columns: ColumnSettings, on_bad_row: OnBadRow
) -> tuple[tuple[str, ...], dict[str, Rows], list[str]]:
    """The class names, the rows of each split, and the notes on how these were read."""

    def find_names(table: Table) -> tuple[str, ...]:
        return reader.class_names(table, columns)

    def find_rows(table: Table, names: tuple[str, ...] = ()) -> Rows:
        return reader.rows(table, columns, names)

    train = tables["train"]
    if on_bad_row == "skip":
        train = _without_bad(find_names, train)
        names = find_names(train)
        train = _without_bad(lambda table: find_rows(table, names), train)
    names = _first_refused(find_names, train, (find_rows,))
    parts, notes = {}, []
    for split, table in {**tables, "train": train}.items():
        check = partial(find_rows, names=names)
        if on_bad_row == "skip" and split != "train":
            table = _without_bad(check, table)
        parts[split] = _first_refused(check, table, (check,))
        notes += table.notes
        if table.skipped.number:
            notes.append(table.skipped.note(table.source, num_rows(table)))
    return names, parts, notes


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
    tables: dict[str, Table], source: SourceSettings, given: Mapping[str, Table] | None
) -> str | None:
    """The sha256 of what was read; None for the hub's."""
    if given is not None:
        return _compare(digest(given), source)
    files = sorted({file for table in tables.values() for file in table.files or [table.source]})
    if not all(Path(file).expanduser().is_file() for file in files):
        return None  # the hub's
    return _compare(sha256_of(Path(file).expanduser() for file in files), source)


def _compare(found: str, source: SourceSettings) -> str:
    if source.sha256 is not None and found != source.sha256:
        raise UserError(
            f"{source.path}: the data has sha256 {found}, expected {source.sha256}. Fetch it"
            " again, or correct config.data.sha256."
        )
    return found
