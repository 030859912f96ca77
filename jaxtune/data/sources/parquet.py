"""Parquet files and Arrow tables to a Table, with what their Hugging Face metadata declares."""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxtune.core.errors import UserError
from jaxtune.core.extras import check_extra
from jaxtune.data.sources.bad_rows import BadRowsError, Skipped, no_text
from jaxtune.data.sources.reading import TRAINING, Reading
from jaxtune.data.sources.table import Table, num_rows, shown, take, where
from jaxtune.data.sources.text_files import read_bytes

if TYPE_CHECKING:
    import pyarrow

_FREE = 2**28
"""Bytes that any file may take in memory."""

_CELL = 64  # bytes of a Python value, about


def to_table(reading: Reading) -> Table:
    """A parquet file; its rows are numbered from 1.

    Raises:
      UserError: it cannot be read, names a column twice, or takes more memory than it may; or the
        package `pyarrow` is absent.
    """
    path = reading.path
    check_extra(f"{path}: a parquet file", "parquet", "pyarrow")
    import pyarrow.parquet

    data = read_bytes(path)
    try:
        # `read_table` would add columns for the `name=value` folders of the path.
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        schema = file.schema_arrow
        _check_distinct(schema.names, path)
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        for batch in _batches(file, len(data), reading):
            for name, values in zip(batch.schema.names, batch.columns, strict=True):
                columns[name] += _to_python(values)
    except UserError:
        raise
    # Arrow, and Python's own dates and decimals, raise whatever they trip over, and the person's
    # remedy is the same.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: cannot be read as parquet ({reason}). If the folder was cloned with git, its "
            "large files may be pointers still: run `git lfs pull` in it."
        ) from error
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    return _sound(_declared(columns, path, _features(metadata)), reading)


def from_arrow(arrow: "pyarrow.Table", features: Mapping[str, Any], source: str) -> Table:
    """An Arrow table as a Table of Python values, with rows numbered from 1.

    Args:
      arrow: any columns; n rows.
      features: by column, as `datasets.Features.to_dict` has them.
      source: as in Table.
    """
    columns = {name: arrow.column(name).to_pylist() for name in arrow.column_names}
    return _sound(_declared(columns, source, features), Reading(source))


def _check_distinct(names: Sequence[str], path: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: found the column name {shown(twice)} more than once, but expected distinct"
            " names. Write the file with other names."
        )


def _batches(file: Any, size: int, reading: Reading) -> Iterator[Any]:
    """The rows in parts, until they take more memory than they may."""
    rows, columns = file.metadata.num_rows, file.metadata.num_columns
    limit = max(_FREE, size * reading.settings.max_expansion)
    too_large = UserError(
        f"{reading.path}: the {size} bytes of the file take more than {limit} in memory, beyond"
        f" config.data.max_expansion {reading.settings.max_expansion} times its size."
        + (" If that is meant, set it to more." if reading.says is TRAINING else "")
    )
    used = _CELL * rows * columns
    if used > limit:
        raise too_large
    # Few at a time where many rows are in few bytes, for each may be large.
    for batch in file.iter_batches(batch_size=4096 if size > 32 * rows else 256):
        used += batch.nbytes
        if used > limit:
            raise too_large
        yield batch


def _to_python(values: Any) -> list[Any]:
    """A column of a batch; texts that are not UTF-8 have halves of surrogate pairs for it."""
    import pyarrow

    try:
        return values.to_pylist()
    except UnicodeDecodeError:
        if not pyarrow.types.is_string(values.type) and not pyarrow.types.is_large_string(
            values.type
        ):
            raise
        texts = values.cast(pyarrow.large_binary()).to_pylist()
        return [text and text.decode("utf-8", "surrogateescape") for text in texts]


def _features(metadata: bytes) -> Mapping[str, Any]:
    """What `datasets` wrote of each column; nothing where that is not as it writes it."""
    try:
        value = json.loads(metadata)
        found = value.get("info", {}).get("features", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _declared(columns: dict[str, list[Any]], source: str, features: Mapping[str, Any]) -> Table:
    """The table, with the names of its classes, and columns of the type Json decoded."""
    decoded = {
        name: [_decode(value) for value in values] if _is_json(features.get(name)) else values
        for name, values in columns.items()
    }
    names = {name: _class_names(features.get(name)) for name in columns}
    size = len(next(iter(columns.values()), ()))
    declared = {name: found for name, found in names.items() if found}
    return Table(decoded, source, range(1, size + 1), declared, unit="row")


def _sound(table: Table, reading: Reading) -> Table:
    """The table without rows that hold what is no text; or without the values that do."""
    faults: dict[int, str] = {}
    for name, values in table.columns.items():
        for i, value in enumerate(values):
            plain = not isinstance(value, str | list | dict)
            wrong = (
                None if plain or (isinstance(value, str) and value.isascii()) else no_text(value)
            )
            if wrong:
                faults.setdefault(i, f"{where(table, i)}: in the column {name!r} {wrong}")
                if reading.on_bad_row == "keep":
                    values[i] = None
    if not faults:
        return table
    if reading.on_bad_row == "stop":
        raise BadRowsError(faults)
    if reading.on_bad_row == "keep":
        return table._replace(skipped=Skipped(kept=faults))
    first = tuple(faults[i] for i in sorted(faults)[:5])
    kept = take(table, [i for i in range(num_rows(table)) if i not in faults])
    return kept._replace(skipped=Skipped(len(faults), first))


def _item(feature: Any) -> Any:
    """What a list holds; the feature itself where it is no list."""
    while isinstance(feature, list | dict):
        inner = feature[:1] if isinstance(feature, list) else [feature.get("feature")]
        if not inner or inner[0] is None:
            break
        feature = inner[0]
    return feature


def _class_names(feature: Any) -> tuple[str, ...]:
    item = _item(feature)
    names = item.get("names") if isinstance(item, dict) else None
    if not isinstance(item, dict) or item.get("_type") != "ClassLabel":
        return ()
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names or ()) if good else ()


def _is_json(feature: Any) -> bool:
    item = _item(feature)
    return isinstance(item, dict) and item.get("_type") == "Json"


def _decode(value: Any) -> Any:
    """A value of the type Json, or a list of them, from the JSON text that it is stored as."""
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
