"""Records as rows of a table: a column for each number, where a record nests them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtune.run.saved import SavedModel
from jaxtune.tasks.records import Record


class Shape(NamedTuple):
    """What the nested fields of a model's records hold, so that an empty one has its columns too.

    Attributes:
      class_names: in the order of the outputs.
      top_k: classes whose probability is told, the likeliest first; None for all.
      targets: of the numbers of a regression.
      separator: between the classes of a row; None where a name of a class holds it.
    """

    class_names: Sequence[str]
    top_k: int | None
    targets: Sequence[str]
    separator: str | None


def shape_of(saved: SavedModel, top_k: int | None) -> Shape:
    """Of the records of a model."""
    names, size = saved.pretrained.class_names, saved.pretrained.design.outputs.size
    columns = saved.data.columns
    own = columns.label_columns
    targets = own if len(own) == size else [str(i) for i in range(1, size + 1)]
    separator = columns.label_separator
    plain = not any(separator in name for name in names)
    return Shape(names, top_k, targets, separator if plain else None)


def flatten(record: Record, shape: Shape) -> Record:
    """The record with the columns of a table; what is truly nested, such as entities, stays so.

    `probabilities` become `probability_NAME` of each class, or `label_1`, `probability_1`, ... of
    the likeliest; `values` become `value_NAME`; `labels` are joined.
    """
    flat: Record = {}
    for name, value in record.items():
        if name == "probabilities" and isinstance(value, dict):
            flat |= _probabilities(value, shape)
        elif name == "values" and isinstance(value, list):
            padded = value or [None] * len(shape.targets)
            flat |= {f"value_{t}": v for t, v in zip(shape.targets, padded, strict=True)}
        elif name == "labels" and isinstance(value, list) and shape.separator is not None:
            flat[name] = shape.separator.join(value)
        else:
            flat[name] = value
    return flat


def _probabilities(found: dict[str, Any], shape: Shape) -> Record:
    if shape.top_k is None:
        return {f"probability_{name}": found.get(name) for name in shape.class_names}
    flat, pairs = {}, [*found.items()]
    for i in range(min(shape.top_k, len(shape.class_names))):
        name, value = pairs[i] if i < len(pairs) else (None, None)
        flat |= {f"label_{i + 1}": name, f"probability_{i + 1}": value}
    return flat
