"""How somebody's files are to be read: kind, encoding, separator and header are found out."""

import codecs
import csv
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.images.images import is_image_folder
from jaxtune.data.look.headers import Shape, find_shape, is_known
from jaxtune.data.sources import conll, locate, text_folders
from jaxtune.data.sources.files import SUFFIXES, format_of, read_file
from jaxtune.data.sources.folder_files import find_splits, no_train_file
from jaxtune.data.sources.reading import Reading
from jaxtune.data.sources.table import Table, concatenate, num_rows
from jaxtune.data.sources.text_files import lines_of, read_bytes, read_text
from jaxtune.settings.data import FileSettings, SourceSettings

_PEEKED = 200  # records that are looked at
_MOST_SKIPPED = 0.1  # of the rows; of more, the file is not what it was taken for
_WINDOWS = range(0x80, 0xA0)  # bytes that are letters in cp1252 and nothing in latin-1


class Opened(NamedTuple):
    """The training rows, and how they were read.

    Attributes:
      train: the rows.
      source: the settings by which they are read.
      words: whether they are words with tags.
      is_images: whether they are images in folders by class.
      header: whether the columns have names of their own.
      notes: what a person should know.
      bare: a file of another split without a header, where that of training has one.
    """

    train: Table
    source: SourceSettings
    words: bool = False
    is_images: bool = False
    header: bool = True
    notes: tuple[str, ...] = ()
    bare: str | None = None


def open_source(path: str) -> Opened:
    """Reads the training rows of a file or folder, whatever they are.

    Raises:
      UserError: there is no such file or folder, or it cannot be read.
    """
    local = Path(os.path.expanduser(path))
    if local.is_dir():
        return _open_folder(path, local)
    if not local.exists():
        raise UserError(
            locate.not_found(path, local) + " Only what is on this machine is looked at."
        )
    return _open_files(SourceSettings(path), [path])


def _open_folder(path: str, root: Path) -> Opened:
    source = SourceSettings(path)
    if is_image_folder(root):
        return Opened(Table({}, path, [], {}), source, is_images=True)
    found = find_splits(path, root, None, True, lambda file: True)
    if found is not None:
        files = [f"{path.rstrip('/')}/{file}" for file in found.splits["train"]]
        others = [
            f"{path.rstrip('/')}/{file}"
            for split, parts in found.splits.items()
            for file in parts
            if split != "train"
        ]
        return _open_files(source, files, others)
    tables = text_folders.load_tables(source, root, ("text", "label"))
    if tables is None:
        raise no_train_file(path, root)
    return Opened(tables["train"], source)


def _open_files(source: SourceSettings, train: Sequence[str], others: Sequence[str] = ()) -> Opened:
    """The rows of the file of a split, or of its shards."""
    files, notes = FileSettings(), []
    is_parquet = _is_parquet(train[0])
    if not is_parquet:
        files = replace(files, encoding=_find_encoding([*train, *others]))
        if files.encoding != "utf-8":
            notes.append(f"the texts are not UTF-8 and are read as {files.encoding}: look at them")
    elif not train[0].lower().endswith(".parquet"):
        files = replace(files, format="parquet")
    text = "" if is_parquet else read_text(Reading(train[0], files))
    files, words, lines = _find_kind(train[0], text, files)
    shape = Shape((), True, 0)
    if words is False and lines:
        shape = find_shape(lines)
        if not shape.has_header:
            files = replace(files, column_names=shape.names)
    source = replace(source, files=files)
    table, more = _read(source, train, shape.names if shape.has_header else (), words)
    if not shape.has_header:
        notes.append(f"no header row was found: its first row is {_shown(lines[0])}")
    bare = [file for file in others if lines and shape.has_header and _is_bare(file, files)]
    opened = Opened(table, source, words, header=shape.has_header, notes=(*notes, *more))
    return opened._replace(bare=next(iter(bare), None))


def _is_bare(file: str, files: FileSettings) -> bool:
    """Whether a file is a table without a header."""
    _, words, rows = _find_kind(file, read_text(Reading(file, files)), files)
    return not words and bool(rows) and not find_shape(rows).has_header


def _read(
    source: SourceSettings, files: Sequence[str], required: Sequence[str], words: bool
) -> tuple[Table, list[str]]:
    """The table, in which a few rows that cannot be read may be missing."""

    def read(settings: FileSettings) -> Table:
        if len(files) == 1 and files[0] == source.path and not words and not required:
            found = locate.load_tables(replace(source, files=settings))
            return found["train"]
        tables = [read_file(file, settings, required, words=words) for file in files]
        return tables[0] if len(tables) == 1 else concatenate(tables, source.path)

    try:
        return read(source.files), []
    except UserError as error:
        first = error
    try:
        table = read(replace(source.files, on_bad_row="skip"))
    except UserError:
        raise first from None
    skipped = table.skipped.number
    if skipped > _MOST_SKIPPED * (skipped + num_rows(table)):
        raise first
    return table, []


def _is_parquet(path: str) -> bool:
    try:
        with open(os.path.expanduser(path), "rb") as stream:
            return path.lower().endswith(".parquet") or stream.read(4) == b"PAR1"
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def _find_encoding(files: Sequence[str]) -> str:
    """UTF-8 where all files are; else what their bytes speak for."""
    odd = b""
    for file in files:
        data = read_bytes(file)
        if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            odd += data
    if not odd:
        return "utf-8"
    # Texts of the West from before UTF-8, by far the most that are met.
    if not any(byte in _WINDOWS for byte in odd):
        return "latin-1"
    try:
        odd.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _find_kind(
    path: str, text: str, files: FileSettings
) -> tuple[FileSettings, bool, list[list[str]]]:
    """The settings with the format where the name does not say it; whether it has words and tags.

    The first records of what is a table come last; of others there are none.
    """
    suffix = Path(path).suffix.lower()
    known = suffix in SUFFIXES
    kind = format_of(Reading(path, files), words=False) if known or files.format else None
    if kind in ("parquet", "json"):
        return files, False, []
    lines = lines_of(text)
    if not lines:
        return replace(files, format=files.format or kind or "text"), False, []
    if kind == "conll" or (kind != "csv" and conll.looks_tagged(lines)):
        return files, True, []
    if kind in (None, "text") and _looks_json(lines):
        return replace(files, format="json"), False, []
    if kind == "tsv":
        quoted = _quoted_rows(text)
        if quoted is None:
            widest = max(lines, key=lambda line: line.count("\t"))  # trailing ones may be left out
            return files, False, [line.split("\t") for line in [*lines[:_PEEKED], widest]]
        return replace(files, format="csv"), False, quoted
    rows = _find_rows(text)
    if kind == "csv":
        return files, False, rows or [[line] for line in lines[:_PEEKED]]
    if lines[0].startswith("__label__"):
        raise UserError(
            f"{path}: found labels in front of the texts, as fastText has them. Write it as a"
            " table: a .tsv file with a line text<TAB>label first, and a line for each text."
        )
    in_prose = rows is not None and "," in lines[0] and not any(map(is_known, rows[0]))
    if rows is None or (in_prose and len(lines[0].split(",")) == len(rows[0])):
        return files if kind else replace(files, format="text"), False, []
    tabs = lines[0].count("\t") == len(rows[0]) - 1 and _quoted_rows(text) is None
    return replace(files, format="tsv" if tabs else "csv"), False, rows


def _looks_json(lines: Sequence[str]) -> bool:
    first = next((line.strip() for line in lines if line.strip()), "")
    if first == "[":
        return True
    try:
        value = json.loads(first.rstrip(","))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(value[:1], list))


def _quoted_rows(text: str) -> list[list[str]] | None:
    """The first records of fields with tabs between, some of which stand in quotes as in csv.

    None where none does.
    """
    lines = lines_of(text)[:_PEEKED]
    fields = [field for line in lines[1:] for field in line.split("\t") if field]
    opened = sum(field.startswith('"') for field in fields)
    rows, is_sound = _csv_rows(text, "\t")
    even = is_sound and len(rows[0]) > 1 and {*map(len, rows)} == {len(rows[0])}
    return rows if even and 10 * opened > len(fields) else None


def _find_rows(text: str) -> list[list[str]] | None:
    """The first records, parted as most evenly gives several fields; None where nothing does."""
    found = []
    for place, separator in enumerate((",", ";", "\t", "|")):
        rows, _ = _csv_rows(text, separator)
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        if width > 1 and count >= 0.9 * len(rows) and len(rows[0]) == width:
            found.append((count / len(rows) > 0.99, separator != ",", width, -place, rows))
    if not found:
        return None
    # Of several, the one that is rarer in texts: commas stand in them.
    return max(found, key=lambda entry: entry[:4])[-1]


def _csv_rows(text: str, separator: str) -> tuple[list[list[str]], bool]:
    """The first records of a csv file, those before the first fault, and whether there is none."""
    csv.field_size_limit(2**31 - 1)
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        rows += itertools.islice(filter(None, reader), _PEEKED)
    except csv.Error:
        return rows, False
    return rows, bool(rows)


def rename(opened: Opened, new: Mapping[str, str]) -> Opened:
    """The same with other names for columns that have none of their own."""
    files = opened.source.files
    named = tuple(new.get(name, name) for name in files.column_names)
    columns: dict[str, list[Any]] = {
        new.get(name, name): values for name, values in opened.train.columns.items()
    }
    return opened._replace(
        train=opened.train._replace(columns=columns),
        source=replace(opened.source, files=replace(files, column_names=named)),
    )


def _shown(row: Sequence[str]) -> str:
    return ", ".join(repr(cell[:30]) for cell in row[:4])
