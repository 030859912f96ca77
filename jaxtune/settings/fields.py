"""What the type of a field may say beside the type: its range, and that a group is flat."""

import re
import typing
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Interval

Count = Annotated[int, Ge(1)]
WholeAmount = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
Amount = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, lt=1)]


class Code(str):
    """The type of a text that names code of a person's own, `MODULE:FUNCTION`."""


def is_code(text: str) -> bool:
    """Whether a text names code."""
    return re.fullmatch(r"[^\W\d]\w*(\.\w+)*:[^\W\d]\w*(\.\w+)*", text) is not None


_FLAT = "its fields are typed as those of the section that it is in"
_Group = TypeVar("_Group")

Flat = Annotated[_Group, _FLAT]
"""A dataclass in a section, whose fields a person types as the section's own."""


def plain(hint: Any) -> Any:
    """A type without what is annotated to it."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def is_flat(hint: Any) -> bool:
    """Whether a type is `Flat`."""
    return _FLAT in getattr(hint, "__metadata__", ())
