"""One data file to one Table: a table or a text a line. Every fault names file and line."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtune.core.errors import UserError
from jaxtune.data.sources import conll, delimited, json_records
from jaxtune.data.sources.table import Table, check_columns
from jaxtune.data.sources.text_files import read_bytes, read_lines, read_text

if TYPE_CHECKING:
    import pyarrow

LINE_SUFFIXES = (".txt", ".tokens", ".raw")  # the last two are WikiText's
_TABLES = (*delimited.SUFFIXES, *json_records.SUFFIXES, ".parquet")
SUFFIXES = (*_TABLES, *LINE_SUFFIXES, *conll.SUFFIXES)


def read_file(
    path: str,
    *,
    encoding: str = "utf-8",
    column_names: Sequence[str] = (),
    required: Sequence[str] = (),
) -> Table:
    r"""Reads one file; its suffix says how.

    `delimited`, `json_records` and `conll` say what they read. `.parquet` brings the class names
    of its Hugging Face metadata. `.txt`, and WikiText's `.tokens` and `.raw`, have a text a line,
    blank ones included, in one column: the first of `required`, or else `text`. In text files
    `\n`, `\r\n` and `\r` end a line; a byte order mark and blank lines at the end are ignored.

    Args:
      path: The file; `~` is expanded.
      encoding: Of a text file, as Python names it.
      column_names: The columns of a csv or tsv file without a header. A file has one if its first
        row holds all of `required` (of `column_names` if that is empty). Without one, a row may
        leave out fields after the required ones; they are None.
      required: The columns that the file, and each JSON record, must have; CoNLL names none.

    Returns:
      The table, with at least one row.

    Raises:
      UserError: the file cannot be read or decoded, has no records, lacks a column, or is
        malformed. The message has file, line, what was found and expected, and the remedy.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        expected = f"expected one of {', '.join(SUFFIXES)}. Convert or rename the file."
        raise UserError(f"{path}: found the suffix {suffix!r}, but {expected}")
    if suffix == ".parquet":
        table = _parquet(path)
        check_columns(table.columns, required, path)
    elif suffix in json_records.SUFFIXES:
        table = json_records.to_table(read_text(path, encoding), path, required)
    elif suffix in conll.SUFFIXES:
        table = conll.to_table(read_lines(path, encoding), path)
    elif suffix in LINE_SUFFIXES:
        texts, name = read_lines(path, encoding), next(iter(required), "text")
        table = Table({name: texts}, path, range(1, len(texts) + 1), {})
        check_columns(table.columns, required, path)
    else:
        table = delimited.to_table(read_text(path, encoding), path, column_names, required)
    if not table.rows:
        raise UserError(f"{path}: found no records, but expected at least one. Check the file.")
    return table


def from_arrow(
    arrow: "pyarrow.Table", class_names: dict[str, tuple[str, ...]], source: str
) -> Table:
    """Turns an Arrow table into a Table of Python values, with rows numbered from 1.

    Args:
      arrow: Any columns; n rows.
      class_names: As in Table.
      source: As in Table.
    """
    columns = {name: arrow.column(name).to_pylist() for name in arrow.column_names}
    return Table(columns, source, range(1, arrow.num_rows + 1), class_names)


def declared_names(features: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The class names of each ClassLabel feature, or list of them, in a `datasets.Features`."""
    import datasets

    items = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {
        name: tuple(item.names)
        for name, item in items.items()
        if isinstance(item, datasets.ClassLabel) and item.names
    }


def _parquet(path: str) -> Table:
    """A parquet file and the class names in its Hugging Face metadata, if it has any."""
    import pyarrow
    import pyarrow.parquet

    try:
        # `read_table` would add columns for the `name=value` folders of the path.
        arrow = pyarrow.parquet.ParquetFile(io.BytesIO(read_bytes(path))).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as parquet ({error}). If the folder was cloned with git, its "
            "large files may be pointers still: run `git lfs pull` in it."
        ) from error
    names: dict[str, tuple[str, ...]] = {}
    if b"huggingface" in (arrow.schema.metadata or {}):
        import datasets  # Slow to import, and only this metadata needs it.

        names = declared_names(datasets.Features.from_arrow_schema(arrow.schema))
    return from_arrow(arrow, names, path)
