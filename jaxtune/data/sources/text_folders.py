"""Folders of texts, one a file, by class: the layout of Large Movie Review and 20 Newsgroups."""

from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import no_text
from jaxtune.data.sources.class_folders import Kind, find_files, load_folder, split_folders
from jaxtune.data.sources.reading import Reading
from jaxtune.data.sources.table import Table
from jaxtune.data.sources.text_files import read_text
from jaxtune.settings.data import SourceSettings

_SUFFIXES = (".txt", "")


def load_tables(
    settings: SourceSettings, root: Path, columns: tuple[str, str]
) -> dict[str, Table] | None:
    """A table for each split; None for what is no folder of such folders.

    Args:
      settings: of the source.
      root: its folder.
      columns: of texts and of classes.

    Raises:
      UserError: as `class_folders.load_folder`.
    """
    if settings.name and (root / settings.name).is_dir():
        root = root / settings.name

    def read(file: Path) -> str:
        text = read_text(Reading(str(file), settings.files))
        wrong = no_text(text, settings.files.encoding)
        if wrong:
            raise UserError(f"{file}: {wrong}")
        return text

    kind = Kind("text", ".txt, or none", _is_text, read, loose=True)
    try:
        train = split_folders(settings.path, root)["train"]
    except UserError:
        return None
    inner = [entry for entry in train.iterdir() if entry.is_dir() and entry.name[0] != "."]
    if sum(bool(find_files(entry, kind)[0]) for entry in inner) < 2:
        return None
    return load_folder(settings.path, root, kind, columns, settings.files)


def _is_text(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES
