"""From a data source to checked rows in splits, whatever the task: nothing is tokenized yet."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources import splits
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.memory import digest
from jaxtune.data.sources.table import Table
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
      places: of each row in its file, from 1; None where that is not known.
    """

    inputs: Sequence[Any]
    labels: Any
    keys: Sequence[Hashable] | None = None
    strata: np.ndarray | None = None
    places: np.ndarray | None = None

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
    names = reader.class_names(tables["train"], columns)
    parts = {
        split: _placed(reader.rows(table, columns, names), table) for split, table in tables.items()
    }
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


def _placed(rows: Rows, table: Table) -> Rows:
    """The rows with their places, where each row of the table is one of them."""
    same = len(rows.inputs) == len(table.rows)
    return rows._replace(places=np.array(table.rows, np.int64)) if same else rows


def class_order(data_names: Sequence[str], model_names: Sequence[str]) -> np.ndarray:
    """Where each class of the data stands in the model's order of the same classes, int32 [c]."""
    return np.array([model_names.index(name) for name in data_names], np.int32)


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
