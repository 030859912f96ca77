"""A path or hub name to one Table per split: which file, folder or dataset holds what."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources.files import (
    LINE_SUFFIXES,
    SUFFIXES,
    declared_names,
    from_arrow,
    read_file,
)
from jaxtune.data.sources.table import Table, check_columns, concatenate
from jaxtune.settings.data import SourceSettings

if TYPE_CHECKING:
    import datasets

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "validation_matched", "valid", "val", "dev", "eval"),
    "test": ("test", "test_matched", "testing"),
}
"""Split -> the words for it, best first."""

_SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_SHARD = re.compile(r"(?P<base>.+)[-_.](?P<index>\d+)[-_]of[-_](?P<count>\d+)(-[0-9a-f]{8,})?")


DataSource = SourceSettings | Mapping[str, Table]
"""Where the tables of all splits are: named by settings, or in memory."""


def load_source(source: DataSource, required: Sequence[str] = ()) -> dict[str, Table]:
    """What `load_tables` loads of a source that the settings name; of tables in memory, these.

    Raises:
      UserError: as `load_tables`; tables in memory without `train`, or of other splits.
    """
    if isinstance(source, Mapping):
        odd = {*source} - {"train", "validation", "test"}
        if odd or "train" not in source:
            raise UserError(
                f"data has {', '.join(map(repr, source)) or 'nothing'}: expected 'train', and where"
                " there are any 'validation' and 'test'."
            )
        for table in source.values():
            check_columns(table.columns, required, table.source)
        return dict(source)
    return load_tables(
        source.path,
        name=source.name,
        encoding=source.encoding,
        column_names=source.column_names,
        required=required,
    )


def load_tables(
    path: str,
    *,
    name: str | None = None,
    encoding: str = "utf-8",
    column_names: Sequence[str] = (),
    required: Sequence[str] = (),
) -> dict[str, Table]:
    """Loads every split that a source holds.

    A file is the train split. In a folder, the words of a file's name say its split
    (`train.tsv`, `sts-dev.tsv`, `wnut17train.csv`), and shards such as
    `train-00000-of-00002.parquet` are put together; files of other formats, and files whose name
    holds no such word, are left alone. If the folder itself holds no train file, its subfolders
    are searched: `name` picks one. Anything else is a dataset of the Hugging Face hub, and only
    what has the form of its names (`name` or `owner/name`) is ever looked up there.

    Args:
      path: A file, a folder or a hub name.
      name: The subfolder of a folder, or the configuration of a hub dataset. A folder without
        such a subfolder is taken to be the configuration itself.
      encoding: As in `read_file`.
      column_names: As in `read_file`.
      required: The columns that every split must have, as in `read_file`. A column that the
        test split may lack does not belong here.

    Returns:
      "train", always, and "validation" and "test" where the source has them.

    Raises:
      UserError: there is no such source, it has no train split, the files of a split are
        ambiguous, or a file is malformed. The message names the files and the remedy.
    """
    read = partial(read_file, encoding=encoding, column_names=column_names, required=required)
    if not path:  # Path("") would be the current folder.
        raise UserError("config.data: found no path, but expected a file, a folder or a hub name.")
    local = Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown ~name
    if local.is_dir():
        splits = _split_files(path, local, name)
        return {split: _read_parts(path, files, read) for split, files in splits.items()}
    if local.exists():
        return {"train": read(path)}
    if _looks_like_path(path):
        raise UserError(_not_found(path, local))
    tables = _load_hub(path, name)
    for table in tables.values():
        check_columns(table.columns, required, table.source)
    return tables


def from_dataset(dataset: "datasets.Dataset", source: str) -> Table:
    """Turns a `datasets.Dataset` into a Table; images and the like stay as they are stored.

    Args:
      dataset: n rows; its ClassLabel features become `class_names`.
      source: The name for messages, `hub-name[split]`.
    """
    arrow = dataset.with_format("arrow")[:]  # Follows select() and shuffle(), decodes nothing.
    return from_arrow(arrow, declared_names(dataset.features), source)


# --- Folders --------------------------------------------------------------------------------


def _split_files(path: str, root: Path, name: str | None) -> dict[str, list[str]]:
    """Split -> its files in order, as paths below `root`, the same on every machine."""
    top = root / name if name and (root / name).is_dir() else root
    here = _by_folder(path, _data_files(root, top.glob("*")))
    splits = next(iter(here.values()), {})
    if "train" not in splits:
        found = _data_files(root, top.rglob("*"))
        splits = _only_folder(path, _by_folder(path, found), found, name)
    return {split: _parts(path, split, splits[split]) for split in SPLIT_WORDS if split in splits}


def _data_files(root: Path, entries: Iterable[Path]) -> list[str]:
    """The data files among the entries, as sorted paths below `root`; hidden ones are left out."""
    return sorted(
        file.relative_to(root).as_posix()
        for file in entries
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    )


def _by_folder(path: str, files: list[str]) -> dict[str, dict[str, list[str]]]:
    """Folder -> split -> those of the files whose names say a split."""
    folders: dict[str, dict[str, list[str]]] = {}
    for file in files:
        split = _split_of(path, file)
        if split:
            folder = PurePosixPath(file).parent.as_posix()
            folders.setdefault(folder, {}).setdefault(split, []).append(file)
    return {
        folder: {split: _tables_first(parts) for split, parts in splits.items()}
        for folder, splits in folders.items()
    }


def _tables_first(files: list[str]) -> list[str]:
    """Without the plain texts where there are tables, beside which they often lie."""
    tables = [file for file in files if not file.lower().endswith(LINE_SUFFIXES)]
    return tables or files


def _only_folder(
    path: str, folders: dict[str, dict[str, list[str]]], found: list[str], name: str | None
) -> dict[str, list[str]]:
    """The splits of the one folder that has any."""
    with_train = [folder for folder, splits in folders.items() if "train" in splits]
    if not with_train:
        raise UserError(
            f"{path}: found no train file among {', '.join(found[:20]) or 'no data files'}, but "
            f"expected one whose name holds the word train, with a suffix of "
            f"{', '.join(SUFFIXES)}. Rename it, or give the path of the file itself."
        )
    if len(with_train) > 1:
        hint = f" There is no folder {name!r}.{nearest(name, with_train)}" if name else ""
        raise UserError(
            f"{path}: found train files in several folders: {', '.join(with_train)}.{hint} "
            "Set config.data.name to the one to use."
        )
    if len(folders) > 1:
        raise UserError(
            f"{path}: found files of splits in several folders: {', '.join(folders)}, but only "
            f"{with_train[0]} has a train file. Set config.data.name to the folder to use, or put "
            "the files of all splits into one folder."
        )
    return folders[with_train[0]]


def _split_of(path: str, file: str) -> str | None:
    """The split whose words the file's name holds: whole words first, then parts of words."""
    stem = PurePosixPath(file).stem
    words = re.findall(r"[A-Za-z0-9]+", stem)
    # Parts end where letters meet digits or a capital follows a small letter. Any substring would
    # make `latest` a test file and `interval` a validation file.
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", stem)
    for candidates in (words, parts):
        splits = {_SPLIT_OF_WORD.get(word.lower()) for word in candidates} - {None}
        if len(splits) > 1:
            raise UserError(
                f"{path}: the name of {file} holds words for several splits "
                f"({', '.join(sorted(filter(None, splits)))}), but expected one. Rename the file."
            )
        if splits:
            return splits.pop()
    return None


def _parts(path: str, split: str, files: list[str]) -> list[str]:
    """The one file of a split, or all its shards in order."""
    shards = [(_SHARD.fullmatch(PurePosixPath(file).stem), file) for file in files]
    kinds = {
        (match and (match["base"], match["count"]), PurePosixPath(file).suffix.lower())
        for match, file in shards
    }
    if len(kinds) > 1 or (len(files) > 1 and shards[0][0] is None):
        raise UserError(
            f"{path}: found several files for the {split} split: {', '.join(files)}, but expected "
            "one file, or shards of one format named like train-00000-of-00002.parquet. Remove or "
            "rename the others."
        )
    indices = [int(match["index"]) for match, _ in shards if match]
    count = int(shards[0][0]["count"]) if shards[0][0] else 0
    if sorted(indices) != list(range(count)):
        raise UserError(
            f"{path}: found {len(files)} of the {count} shards of the {split} split: "
            f"{', '.join(files)}. Complete the folder, or rename the files that are there."
        )
    order = sorted(range(len(files)), key=lambda i: indices[i]) if indices else [0]
    return [files[i] for i in order]


def _read_parts(path: str, files: list[str], read: Callable[[str], Table]) -> Table:
    """Reads the file or the shards of one split."""
    root = path.rstrip("/")
    tables = [read(f"{root}/{file}") for file in files]
    if len(tables) == 1:
        return tables[0]
    return concatenate(tables, f"{tables[0].source} and {len(tables) - 1} more")


# --- Paths that do not exist ----------------------------------------------------------------


def _looks_like_path(path: str) -> bool:
    """True for what a person can only have meant as a path, so the network is left alone."""
    is_hub_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path, re.ASCII)
    return not is_hub_name or path.lower().endswith(SUFFIXES)


def _not_found(path: str, local: Path) -> str:
    """The message for a path that does not exist, with what is beside it."""
    parent = local.parent
    if not parent.is_dir():
        return f"{path}: does not exist, and neither does its folder {parent}. Check the path."
    beside = sorted(entry.name for entry in parent.iterdir())
    hint = nearest(local.name, beside) or f" It holds: {', '.join(beside[:10]) or 'nothing'}."
    return f"{path}: does not exist in its folder {parent}.{hint} Check the path."


# --- The hub --------------------------------------------------------------------------------


def _load_hub(path: str, name: str | None) -> dict[str, Table]:
    """Downloads a dataset, or takes it from the local cache."""
    import datasets

    try:
        found = datasets.load_dataset(path, name)
    # Not found, offline, no such configuration, a dataset that is a script: each library below
    # load_dataset raises its own kind, and the person's remedy is the same.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        call = f"datasets.load_dataset({path!r}" + (f", {name!r})" if name else ")")
        raise UserError(
            f"{path}: there is no such file or folder here, and {call} failed with "
            f"{type(error).__name__}: {reason} Check the name and config.data.name; without a "
            "network, give the path of a folder that holds the files of the dataset."
        ) from error
    label = f"{path}/{name}" if name else path
    return {
        split: from_dataset(found[word], f"{label}[{word}]")
        for split, word in _hub_splits(path, list(map(str, found))).items()
    }


def _hub_splits(path: str, found: list[str]) -> dict[str, str]:
    """Split -> its name in a hub dataset."""
    chosen = {
        split: next((word for word in words if word in found), None)
        for split, words in SPLIT_WORDS.items()
    }
    if chosen["train"] is None:
        raise UserError(
            f"{path}: found the splits {', '.join(found)}, but expected one named train. Choose "
            "another configuration with config.data.name, or save the splits as local files."
        )
    return {split: word for split, word in chosen.items() if word}
