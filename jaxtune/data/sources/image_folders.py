"""Folders of images to one Table per split; the name of a folder is the class of its images."""

from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.images.decode import Source
from jaxtune.data.sources.locate import SPLIT_WORDS
from jaxtune.data.sources.table import Table
from jaxtune.settings.data import ColumnSettings

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)


def find_images(folder: Path) -> list[Path]:
    """The images anywhere below a folder, sorted by path; hidden files and folders are left out."""
    return sorted(file for file in folder.rglob("*") if _is_image(file, folder))


def has_images(folder: Path) -> bool:
    """Whether there is an image anywhere below a folder."""
    return any(_is_image(file, folder) for file in folder.rglob("*"))


def load_folder(path: str, root: Path, columns: ColumnSettings) -> dict[str, Table]:
    """A table for each of `root/SPLIT/CLASS/*`, or one for `root/CLASS/*`.

    A split's folder is named with one of the words of `sources.SPLIT_WORDS`; other folders beside
    that of train are left alone. A class has all images below its folder. Images of validation or
    test may lie in the split's own folder, without classes.

    Args:
      path: the folder as the person gave it, for names and messages.
      root: the same, or the subfolder to read.
      columns: the image column gets a `Source` for each image; the label column the class, and is
        absent where a split has none.

    Returns:
      "train", always, and "validation" and "test" where there are such folders.

    Raises:
      UserError: no train folder, several for one split, images beside the folders of classes, a
        class without images, fewer than two classes, or one that train does not have.
    """
    tables = {}
    for split, folder in _split_folders(path, root).items():
        found = _class_images(split, folder)
        classes, files = [name for name, _ in found], [str(file) for _, file in found]
        values: dict[str, list[Any]] = {
            columns.image_column: [Source(file, file) for file in files]
        }
        if None not in classes:
            values[columns.label_column] = classes
        tables[split] = Table(values, str(folder), [1] * len(files), {}, files)
    _check_classes(tables, columns)
    return tables


def _is_image(file: Path, top: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(top).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.is_file()


def _folders(folder: Path) -> list[Path]:
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in entries if entry.is_dir())


def _split_folders(path: str, root: Path) -> dict[str, Path]:
    """Split -> its folder."""
    found: dict[str, list[Path]] = {}
    for folder in _folders(root):
        for split, words in SPLIT_WORDS.items():
            if folder.name.lower() in words:
                found.setdefault(split, []).append(folder)
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
            " training images train, or choose another name for a class."
        )
    ordered = {split: found[split][0] for split in SPLIT_WORDS if split in found}
    return ordered or {"train": root}


def _class_images(split: str, folder: Path) -> list[tuple[str | None, Path]]:
    """(class, image) by class and path; the class is None where there are no folders of classes."""
    classes = {entry: find_images(entry) for entry in _folders(folder)}
    loose = [entry for entry in sorted(folder.iterdir()) if _is_image(entry, folder)]
    if loose and (split == "train" or any(classes.values())):
        raise UserError(
            f"{loose[0]}: found an image beside the folders of classes, but expected it in one of"
            f" them: {folder}/CLASS/{loose[0].name}. Move or remove it."
        )
    empty = [entry for entry, files in classes.items() if not files and split == "train"]
    if empty:
        raise UserError(
            f"{empty[0]}: found no images, but expected some of the class {empty[0].name!r}, with"
            f" a suffix of {', '.join(SUFFIXES)}. Fill or remove the folder."
        )
    found: list[tuple[str | None, Path]] = [(None, file) for file in loose]
    found += [(entry.name, file) for entry, files in classes.items() for file in files]
    if not found:
        raise UserError(
            f"{folder}: found no images, but expected {folder}/CLASS/IMAGE, with a suffix of"
            f" {', '.join(SUFFIXES)}. Check config.data.path."
        )
    return found


def _check_classes(tables: dict[str, Table], columns: ColumnSettings) -> None:
    """Refuses a single class, and one that train does not have unless it is to count as wrong."""
    known = sorted(set(tables["train"].columns[columns.label_column]))
    if len(known) < 2:
        raise UserError(
            f"{tables['train'].source}: found one folder, {known[0]}, but expected one for each of"
            " at least two classes. Check config.data.path."
        )
    for split, table in tables.items():
        labels = table.columns.get(columns.label_column, [])
        new = sorted(set(labels) - set(known))
        if new and columns.on_unknown_class == "stop":
            count = sum(label in new for label in labels)
            more = f" and {len(known) - 20} more" if len(known) > 20 else ""
            raise UserError(
                f"{table.source}/{new[0]}: found the class {new[0]!r} in {split}, but expected one"
                f" that train has: {', '.join(known[:20])}{more}.{nearest(new[0], known)} Rename"
                f" or remove the folder, or set config.data.on_unknown_class=wrong, which scores"
                f" the {count} images of such classes as errors."
            )
