"""Folders and tables of images with their classes: how they are read and checked."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxtune.core.errors import UserError
from jaxtune.data.images.checked import Digests
from jaxtune.data.images.decode import MAX_PIXELS, Source, check_all, is_image
from jaxtune.data.images.image_examples import ImageExamples
from jaxtune.data.images.image_processor import ImageProcessor
from jaxtune.data.images.preprocessor_config import load_image_processor
from jaxtune.data.inputs import Inputs
from jaxtune.data.sources import class_folders, locate
from jaxtune.data.sources.bad_rows import BadRowsError
from jaxtune.data.sources.class_folders import Kind, find_files
from jaxtune.data.sources.files import SUFFIXES as TABLE_SUFFIXES
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.new_rows import SourceColumns, open_lines, open_new, source_columns
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table, bad_row, check_columns, column, where
from jaxtune.data.text import doubts, labels
from jaxtune.data.text.text_tables import Track
from jaxtune.settings.data import ColumnSettings, DataSettings, SourceSettings

_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
_MAX_PIXELS = "pixels that an image may have"  # a column, which no file has

CheckAll = Callable[[Sequence[Source]], list[bytes]]
"""Images -> the digest of each; raises a BadRowsError."""

_REMEDY = "Set config.data.image_column and config.data.label_column to columns that are there."


def encode(
    rows: Rows, processor: ImageProcessor, settings: DataSettings, track: Track = iter
) -> tuple[ImageExamples, list[str]]:
    """Examples of images that have been checked, and where their size comes from if not a file.

    Args:
      rows: with labels or without.
      processor: from `load_image_processor`.
      settings: has the augmentation.
      track: not used, for nothing is decoded here.
    """
    del track
    examples = ImageExamples(rows.inputs, processor, rows.labels, settings.augmentation)
    return examples, []


def read_new(
    source: Path | Table,
    columns: Sequence[str] = (),
    encoding: str = "utf-8",
    check_all: CheckAll = check_all,
) -> Rows:
    """The images to predict; each has been decoded once, and one that cannot be has a reason.

    Args:
      source: a folder, of which all images are taken in the order of their paths; an image; a .txt
        with a path on each line, taken from the folder of the file; or a table.
      columns: the column of a table that holds the images; () takes `image`, or the only column.
      encoding: of a .txt, csv, tsv or json file.
      check_all: as `decode.check_all`.

    Raises:
      UserError: names the file and the line of what is wrong.
    """
    suffix = "" if isinstance(source, Table) else source.suffix.lower()
    if isinstance(source, Path) and source.is_dir():
        kind = _kind(MAX_PIXELS)
        found = [kind.read(file) for file in find_files(source, kind)[0]]
        if not found:
            raise UserError(
                f"{source}: found no images, but expected some with a suffix of {kind.suffixes}."
                " Check the path."
            )
        return _checked(found, str(source), {}, check_all)
    if isinstance(source, Path) and suffix in _SUFFIXES:
        return _checked([Source(str(source), str(source))], str(source), {}, check_all)
    table = source if isinstance(source, Table) else _new_table(source, suffix, encoding)
    names = list(columns) or [
        name for name in table.columns if name == "image" or len(table.columns) == 1
    ]
    if len(names) != 1:
        raise UserError(
            f"{table.source} has the columns {', '.join(table.columns)}: expected the name of"
            " one that holds the images."
        )
    check_columns(table.columns, names, table.source, "Name a column that is there.")
    limit, bad, found = MAX_PIXELS, {}, []
    for i, value in enumerate(column(table, names[0])):
        try:
            found.append(_image(table, i, names[0], value, limit))
        except UserError as error:
            found.append(_stand_in(where(table, i)))
            bad[i] = table.skipped.kept.get(i, str(error))
    rows = _checked(found, table.source, bad, check_all)
    return rows._replace(columns=source_columns(table))


def _checked(
    found: Sequence[Source], source: str, bad: Mapping[int, str], check_all: CheckAll
) -> Rows:
    """Rows of images; a stand-in takes the place of one that cannot be read.

    Args:
      found: where each is.
      source: of all of them, for messages.
      bad: index of a row without an image -> what is wrong with it.
      check_all: as `decode.check_all`.

    Raises:
      UserError: there is no good one among them.
    """
    wrong = dict(bad)
    try:
        check_all(found)
    except BadRowsError as error:
        wrong = error.rows | wrong
    if len(wrong) == len(found):
        others = f"{source}: none of {len(found)} images can be read. First: "
        raise UserError(f"{others if len(found) > 1 else ''}{wrong[0]}")
    good = [_stand_in(part.name) if i in wrong else part for i, part in enumerate(found)]
    reasons = [wrong.get(i, "") for i in range(len(found))] if wrong else None
    names = SourceColumns({"file": [part.name for part in found]}, ("file",))
    return Rows(good, None, reasons=reasons, columns=names)


def _stand_in(name: str) -> Source:
    """A white pixel in the place of an image that cannot be read."""
    return Source(name, name, _png(np.full((1, 1, 3), 255, np.uint8), name))


def _new_table(source: Path, suffix: str, encoding: str) -> Table:
    if suffix != ".txt":
        return open_new(source, encoding, "images")
    return open_lines(source, encoding, "image", "the path of one image")


def _load(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """Folders of images, or tables with a column of them."""
    if not isinstance(source, SourceSettings):
        return _load_tables(source, columns)
    root, limit = Path(os.path.expanduser(source.path)), source.files.max_image_pixels
    if source.name and (root / source.name).is_dir():
        root = root / source.name
    if source.path and root.is_dir() and is_image_folder(root):
        names = (columns.image_column, columns.label_column)
        kind = _kind(limit)
        return class_folders.load_folder(source.path, root, kind, names, source.files)
    tables = _load_tables(source, columns)
    return {
        split: table._replace(columns=table.columns | {_MAX_PIXELS: [limit] * len(table.rows)})
        for split, table in tables.items()
    }


def _load_tables(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    tables = locate.load_source(source)
    for table in tables.values():
        check_columns(table.columns, (columns.image_column,), table.source, _REMEDY)
    return tables


def _kind(max_pixels: int) -> Kind:
    """Images: what has such a suffix, or begins like one."""
    return Kind(
        "image",
        ", ".join(_SUFFIXES),
        lambda file: _has_suffix(file) or is_image(str(file)),
        lambda file: _source(str(file), max_pixels),
    )


def _source(file: str, max_pixels: int) -> Source:
    """A file, which is its own place."""
    return Source(file, file, max_pixels=max_pixels)


def _has_suffix(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES


def is_image_folder(root: Path) -> bool:
    """Whether a folder holds images, and no table that says what they are."""
    return not _has_train_table(root) and _has_images(root)


def _has_images(root: Path) -> bool:
    """Whether there is an image anywhere below a folder."""
    kind = _kind(MAX_PIXELS)
    seen = (file for file in root.rglob("*") if class_folders.is_seen(file, root))
    return any(kind.is_one(file) for file in seen)


def _has_train_table(root: Path) -> bool:
    """Whether a table says what the images beside it are."""
    return any(
        file.suffix.lower() in TABLE_SUFFIXES and "train" in file.stem.lower()
        for file in root.iterdir()
    )


def _has_labels(table: Table, columns: ColumnSettings) -> bool:
    return labels.has_targets(table, columns.label_column)


def _class_names(table: Table, columns: ColumnSettings) -> tuple[str, ...]:
    return labels.class_names(table, columns.label_column)


def _rows(
    table: Table,
    columns: ColumnSettings,
    names: tuple[str, ...],
    check_all: CheckAll = check_all,
) -> Rows:
    found = labels.class_labels(table, columns.label_column, names, columns.on_unknown_class)
    images, classes = _images(table, columns.image_column), found.indices
    return Rows(images, classes, keys=check_all(images), strata=classes, notes=found.notes)


def _images(table: Table, name: str) -> list[Source]:
    """Where the image of each row is: in the table itself, or in a file that it names."""
    limit = next(iter(table.columns.get(_MAX_PIXELS, ())), MAX_PIXELS)
    values = enumerate(column(table, name))
    return [_image(table, i, name, value, limit) for i, value in values]


def _image(table: Table, i: int, name: str, value: Any, limit: int) -> Source:
    """Where the image of one row is."""
    place = where(table, i)
    path = value.get("path") if isinstance(value, dict) else value
    data = value.get("bytes") if isinstance(value, dict) else None
    if isinstance(value, Source):
        return value
    if isinstance(data, bytes):
        return Source(path or place, place, data, limit)
    if isinstance(value, Image.Image | np.ndarray):
        return Source(place, place, _png(value, place))
    if isinstance(path, str) and path.strip():
        folder = Path(table.files[i] if table.files else table.source).parent
        file = str(folder / os.path.expanduser(path.strip()))
        return Source(file, f"{place}: {file}", None, limit)
    shown = "nothing" if value is None else repr(value)[:80]
    raise bad_row(
        table,
        i,
        f"found {shown} in the column {name!r}, but expected an image or the path of its"
        " file. Fill in or remove the row, or check config.data.image_column.",
    )


def _png(image: Image.Image | np.ndarray, place: str) -> bytes:
    """An image in memory as a file would hold it; pixels are uint8, [h w] or [h w 3]."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise UserError(
                f"{place}: found an array of {image.dtype} {list(image.shape)}, but expected"
                " pixels: uint8 [h w 3]."
            )
        image = Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def _check_settings(settings: DataSettings, config: Any, folder: Path) -> None:
    if hasattr(config, "max_length"):
        raise UserError(
            f"{folder} is a model of texts, which sees no images. Choose a model of images, such as"
            " ViT or ResNet, or a config.task of texts."
        )
    if config.num_channels != 3:
        raise UserError(
            f"{folder}: config.json has num_channels {config.num_channels}, but images are read as"
            " RGB: expected 3."
        )
    if settings.tokens.token_dropout:
        raise UserError(
            f"config.data.token_dropout is {settings.tokens.token_dropout}, but images have no"
            " tokens: expected 0."
        )


def _load_processor(folder: Path, config: Any) -> ImageProcessor:
    return load_image_processor(folder, getattr(config, "image_size", None))


IMAGES = Inputs(_check_settings, _load_processor, lambda examples, config, folder: None)
"""Images, by the preprocessor_config.json in the model's folder."""


def _doubts(rows: Rows, names: Sequence[str]) -> list[str]:
    return doubts.of_classes(names, np.bincount(rows.labels, minlength=len(names)))


CLASSES = Reader(_load, _has_labels, _class_names, _rows, what="images", doubts=_doubts)
"""One class an image: labels int32 [n]."""


def once(folder: Path) -> dict[str, Any]:
    """What of a task's data decodes no image a second time; what is known is kept in `folder`."""
    known = Digests(folder)
    rows = partial(_rows, check_all=known.check_all)
    return {
        "reader": CLASSES._replace(rows=rows, digest=known.of_files),
        "read_new": partial(read_new, check_all=known.check_all),
    }
