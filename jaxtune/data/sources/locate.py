"""A path or hub name to one Table per split: which file, folder or dataset holds what."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources import hub, json_records, text_folders
from jaxtune.data.sources.files import SUFFIXES, format_of, read_file
from jaxtune.data.sources.folder_files import SPLIT_WORDS, find_splits, no_train_file
from jaxtune.data.sources.reading import Reading
from jaxtune.data.sources.table import MissingColumnsError, Table, check_columns, concatenate
from jaxtune.data.sources.text_files import read_text
from jaxtune.settings.data import SourceSettings

DataSource = SourceSettings | Mapping[str, Table]
"""Where the tables of all splits are: named by settings, or in memory."""


def load_source(
    source: DataSource, required: Sequence[str] = (), *, label: str = "label", words: bool = False
) -> dict[str, Table]:
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
    return load_tables(source, required, label=label, words=words)


def load_tables(
    settings: SourceSettings,
    required: Sequence[str] = (),
    *,
    label: str = "label",
    words: bool = False,
) -> dict[str, Table]:
    """Loads every split that a source holds.

    A file is the train split, or a JSON object of splits. In a folder, the words of a file's name
    say its split (`sts-dev.tsv`, `eng.testa`), and shards (`train-00000-of-00002.parquet`) are put
    together; a note names other files. If the folder itself holds no train file, its subfolders are
    searched: `name` picks one. A folder without any may have a folder of texts for each class.
    Anything else is a dataset of the hub, if it has the form of its names.

    Args:
      settings: `path` is a file, a folder or a hub name; `name` the subfolder of a folder, or the
        configuration of a hub dataset (a folder without such a subfolder is taken to be the
        configuration itself); `files` as in `read_file`.
      required: The columns that every split must have, as in `read_file`. A column that the
        test split may lack does not belong here.
      label: The column that gets the names of folders, where these are classes.
      words: As in `read_file`.

    Returns:
      "train", always, and "validation" and "test" where the source has them.

    Raises:
      UserError: there is no such source, it has no train split, the files of a split are
        ambiguous, or a file is malformed. The message names the files and the remedy.
    """
    path = settings.path
    if not path:  # Path("") would be the current folder.
        raise UserError("config.data: found no path, but expected a file, a folder or a hub name.")
    local = Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown ~name
    if os.path.isdir(local):  # False for a name that no folder can have, too
        tables = _load_folder(settings, local, required, words)
        if tables is None and len(required) == 1 and not words:
            tables = text_folders.load_tables(settings, local, (required[0], label))
        if tables is None:
            raise no_train_file(path, local)
        return tables
    if os.path.exists(local):
        return _load_file(settings, required, words)
    if _looks_like_path(path):
        raise UserError(not_found(path, local))
    tables = hub.load_hub(path, settings.name)
    for table in tables.values():
        check_columns(table.columns, required, table.source)
    return tables


def _load_file(settings: SourceSettings, required: Sequence[str], words: bool) -> dict[str, Table]:
    reading = Reading(settings.path, settings.files, required)
    if format_of(reading, words) == "json":
        tables = json_records.split_tables(read_text(reading), reading, SPLIT_WORDS)
        if tables:
            return tables
    return {"train": read_file(settings.path, settings.files, required, words=words)}


def _load_folder(
    settings: SourceSettings, root: Path, required: Sequence[str], words: bool
) -> dict[str, Table] | None:
    """The splits that files hold, by their names; None where no name says train."""
    path, files = settings.path, settings.files
    read = partial(read_file, settings=files, required=required, words=words)
    top = path.rstrip("/")

    def fits(file: str) -> bool:
        try:
            return bool(read(f"{top}/{file}"))
        except MissingColumnsError:
            return False
        except UserError:
            return True  # what is wrong with it is told when it is read

    found = find_splits(path, root, settings.name, words or files.format is not None, fits)
    if found is None:
        return None
    tables = {
        split: _concatenate([read(f"{top}/{file}") for file in parts])
        for split, parts in found.splits.items()
    }
    notes = (*found.note(path), *tables["train"].notes)
    return tables | {"train": tables["train"]._replace(notes=notes)}


def _concatenate(tables: Sequence[Table]) -> Table:
    """The file or the shards of one split."""
    if len(tables) == 1:
        return tables[0]
    return concatenate(tables, f"{tables[0].source} and {len(tables) - 1} more")


# --- Paths that do not exist ----------------------------------------------------------------


def _looks_like_path(path: str) -> bool:
    """True for what a person can only have meant as a path, so the network is left alone."""
    is_hub_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path, re.ASCII)
    return not is_hub_name or path.lower().endswith(SUFFIXES)


def not_found(path: str, local: Path) -> str:
    """The message for a path that does not exist, with what is beside it."""
    parent = local.parent
    if not os.path.isdir(parent):
        return f"{path}: does not exist, and neither does its folder {parent}. Check the path."
    beside = sorted(entry.name for entry in parent.iterdir())
    hint = nearest(local.name, beside) or f" It holds: {', '.join(beside[:10]) or 'nothing'}."
    place = "this folder" if parent == Path() else f"its folder {parent}"
    return f"{path}: does not exist in {place}.{hint} Check the path."
