"""Folders of files to one Table per split; the name of a folder is the class of its files."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import sift
from jaxtune.data.sources.folder_files import SPLIT_WORDS, split_of_name
from jaxtune.data.sources.table import Table
from jaxtune.settings.data import FileSettings

_UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")
"""Folders of a training split that are no class, as Large Movie Review has one."""


class Kind(NamedTuple):
    """What lies in the folders.

    Attributes:
      what: an example is called in messages.
      suffixes: for messages.
      is_one: whether a file is an example.
      read: a file as the input column has it; raises a UserError where it is broken.
      loose: whether files beside the folders of classes are left alone; else they are refused.
    """

    what: str
    suffixes: str
    is_one: Callable[[Path], bool]
    read: Callable[[Path], Any]
    loose: bool = False


def find_files(folder: Path, kind: Kind) -> tuple[list[Path], list[Path]]:
    """The examples anywhere below a folder, sorted by path, and the other files.

    Hidden files and folders are left out.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    ones, others = [], []
    for file in sorted(found):
        (ones if kind.is_one(file) else others).append(file)
    return ones, others


def split_folders(path: str, root: Path) -> dict[str, Path]:
    """Split -> its folder; all is `train` where no folder has the name of a split.

    Raises:
      UserError: several folders for a split, or none for train.
    """
    found: dict[str, list[Path]] = {}
    for folder in _folders(root):
        for split, words in SPLIT_WORDS.items():
            if folder.name.lower() in words:
                found.setdefault(split, []).append(folder)
    if not found:  # `20news-bydate-train`
        for folder in _folders(root):
            split = split_of_name(folder.name)
            if split:
                found.setdefault(split, []).append(folder)
        found = found if "train" in found else {}
    for split, folders in found.items():
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise UserError(
                f"{path}: found several folders for the {split} split: {names}, but expected one."
                " Remove or rename the others."
            )
    if found and "train" not in found:
        names = ", ".join(folders[0].name for folders in found.values())
        raise UserError(
            f"{path}: found the folder {names}, but none named train. Name the folder of the"
            " training data train, or choose another name for a class."
        )
    ordered = {split: found[split][0] for split in SPLIT_WORDS if split in found}
    return ordered or {"train": root}


def load_folder(
    path: str, root: Path, kind: Kind, columns: tuple[str, str], settings: FileSettings
) -> dict[str, Table]:
    """A table for each of `root/SPLIT/CLASS/*`, or one for `root/CLASS/*`.

    A split's folder is named with one of the words of `SPLIT_WORDS`; other folders beside that of
    train are left alone. A class has all examples below its folder. Those of validation or test may
    lie in the split's own folder, without classes. A note counts the files that are no examples.

    Args:
      path: the folder as the person gave it, for names and messages.
      root: the same, or the subfolder to read.
      kind: of the files.
      columns: the names of the inputs and of the classes; these are absent where a split has none.
      settings: say what becomes of files that cannot be read.

    Returns:
      "train", always, and "validation" and "test" where there are such folders.

    Raises:
      UserError: no train folder, several for one split, examples beside the folders of classes, a
        class without any, or fewer than two classes.
    """
    folders = split_folders(path, root)
    tables, left = {}, []
    for split, folder in folders.items():
        found, others = _class_files(split, folder, kind)
        left += others
        tables[split] = _read(found, str(folder), kind, columns, settings)
    if folders["train"] != root:
        beside = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
        left += [entry for entry in beside if entry not in folders.values()]
    _check_classes(tables["train"], columns[1])
    note = _left_note(path, kind, left)
    return tables | {"train": tables["train"]._replace(notes=note)}


def _read(
    found: Sequence[tuple[str | None, Path]],
    source: str,
    kind: Kind,
    columns: tuple[str, str],
    settings: FileSettings,
) -> Table:
    """The examples that could be read."""

    def read(file: Path) -> Any:
        try:
            return kind.read(file)
        except UserError as error:
            return error

    values = ((i, read(file)) for i, (_, file) in enumerate(found))
    good, skipped = sift(values, settings.on_bad_row, None)
    classes = [found[i][0] for i, _ in good]
    files = [str(found[i][1]) for i, _ in good]
    read_columns: dict[str, list[Any]] = {columns[0]: [value for _, value in good]}
    if None not in classes:
        read_columns[columns[1]] = classes
    return Table(read_columns, source, [1] * len(files), {}, files=files, unit="", skipped=skipped)


def _left_note(path: str, kind: Kind, left: Sequence[Path]) -> tuple[str, ...]:
    """What a person is told of the files that are no examples."""
    if not left:
        return ()
    names = [f"{f.name}/" if f.is_dir() else (f.suffix.lower() or f.name)[:30] for f in left]
    counts = ", ".join(f"{name} {n}" for name, n in Counter(names).most_common(8))
    return (f"{path}: left alone, as no {kind.what}s of the data: {counts}",)


def is_seen(file: Path, top: Path) -> bool:
    """Whether it is no folder, and neither it nor a folder between it and `top` is hidden."""
    hidden = any(part.startswith(".") for part in file.relative_to(top).parts)
    return not hidden and not file.is_dir()


def _folders(folder: Path) -> list[Path]:
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in entries if entry.is_dir())


def _class_files(
    split: str, folder: Path, kind: Kind
) -> tuple[list[tuple[str | None, Path]], list[Path]]:
    """(class, file) by class and path, and the other files.

    The class is None where there are no folders of classes.
    """
    below = {entry: find_files(entry, kind) for entry in _folders(folder)}
    no_class = [entry for entry in below if entry.name.lower() in _UNLABELLED]
    classes = {entry: found[0] for entry, found in below.items() if entry not in no_class}
    left = [file for entry, found in below.items() if entry not in no_class for file in found[1]]
    beside = [entry for entry in sorted(folder.iterdir()) if is_seen(entry, folder)]
    loose = [entry for entry in beside if kind.is_one(entry)]
    left += [*no_class, *(entry for entry in beside if entry not in {*loose})]
    if loose and (split == "train" or any(classes.values())):
        if not kind.loose:
            raise UserError(
                f"{loose[0]}: found an {kind.what} beside the folders of classes, but expected it"
                f" in one of them: {folder}/CLASS/{loose[0].name}. Move or remove it."
            )
        left, loose = left + loose, []
    empty = [entry for entry, files in classes.items() if not files and split == "train"]
    if empty:
        raise UserError(
            f"{empty[0]}: found no {kind.what}s, but expected some of the class {empty[0].name!r},"
            f" with a suffix of {kind.suffixes}. Fill or remove the folder."
        )
    found: list[tuple[str | None, Path]] = [(None, file) for file in loose]
    found += [(entry.name, file) for entry, files in classes.items() for file in files]
    if not found:
        raise UserError(
            f"{folder}: found no {kind.what}s, but expected {folder}/CLASS/FILE, with a suffix of"
            f" {kind.suffixes}. Check config.data.path."
        )
    return found, left


def _check_classes(train: Table, label_column: str) -> None:
    """Refuses a single class."""
    known = set(train.columns[label_column])
    if len(known) < 2:
        raise UserError(
            f"{train.source}: found one folder, {known.pop()}, but expected one for each of at"
            " least two classes. Check config.data.path."
        )
