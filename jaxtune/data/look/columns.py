"""What the values of a column seem to be, whatever it is called."""

import itertools
import json
import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from jaxtune.data.text.labels import is_plain, number_of

Kind = Literal[
    "empty",
    "constant",
    "id",
    "date",
    "link",
    "flag",
    "class",
    "number",
    "text",
    "name",
    "words",
    "list",
    "joined",
    "hot",
    "answers",
    "image",
    "file",
    "other",
]
"""`flag` has two values that say yes and no, `class` few that recur, `joined` several classes in a
field, `list` lists, `words` lists of as many as a sentence has, `hot` lists of 0 and 1, `name`
short texts that hardly recur, `file` names of images."""

_SAMPLE = 5000  # values that are looked at one by one
_YES_NO = ({"0", "1"}, {"yes", "no"}, {"y", "n"}, {"true", "false"}, {"t", "f"}, {"ja", "nein"})
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?"
    r"|\d{1,2}:\d{2}(:\d{2})?|(mon|tue|wed|thu|fri|sat|sun)\w* .*\d{4}|\w{3,9}\.? \d{1,2}, \d{4}",
    re.IGNORECASE | re.ASCII,
)
_LINK = re.compile(r"(https?://|www\.)\S+", re.IGNORECASE)
_IMAGE = re.compile(r"[^\n]+\.(avif|bmp|gif|jfif|jpe?g|png|ppm|tiff?|webp)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
SEPARATORS = ("|", ";", ",")
"""What may stand between the classes in a field, the surest first."""

_MOST_CLASSES, _LONGEST_CLASS = 1000, 60


class Column(NamedTuple):
    """A column of n values.

    Attributes:
      name: of the column.
      kind: what its values seem to be.
      distinct: how many different ones there are.
      missing: how many are nothing.
      words: of a value, in the mean.
      whole: whether all are whole numbers.
      separator: between joined classes.
      note: what is odd about it, for a person.
    """

    name: str
    kind: Kind
    distinct: int = 0
    missing: int = 0
    words: float = 0.0
    whole: bool = False
    separator: str = ""
    note: str = ""


def is_missing(value: Any) -> bool:
    """Whether a value is nothing: blank, NaN or None."""
    if isinstance(value, str):
        return not value.strip() or value.strip().lower() == "nan"
    return value is None or (isinstance(value, float) and math.isnan(value))


def describe(name: str, values: Sequence[Any], declared: Sequence[str] = ()) -> Column:
    """What a column seems to be.

    Args:
      name: of the column.
      values: n of them.
      declared: the names of its classes, where the source has them.
    """
    found = [value for value in values if not is_missing(value)]
    missing = len(values) - len(found)
    if not found:
        return Column(name, "empty", missing=missing)
    sample = found[:: -(-len(found) // _SAMPLE)]
    if isinstance(sample[0], list | tuple | dict) or _is_json(sample[0]):
        column = _of_nested(name, sample)
        return column._replace(missing=missing)
    if not all(map(is_plain, sample)):
        is_image = hasattr(sample[0], "size") or isinstance(sample[0], bytes)
        return Column(name, "image" if is_image else "other", len(found), missing)
    texts = [str(value).strip() for value in found]
    distinct = len({*texts})
    sampled = [str(value).strip() for value in sample]
    words = sum(map(count_words, sampled)) / len(sampled)
    column = Column(name, "other", distinct, missing, words)
    if declared:
        return column._replace(kind="class")
    numbers = [number_of(value) for value in sample if not isinstance(value, bool)]
    if len(numbers) == len(sample) and all(map(math.isfinite, numbers)):
        return _of_numbers(column, texts, numbers)
    return _of_texts(column, texts, sampled)


def count_words(text: str) -> int:
    """How many words a text has; in scripts without blanks, two letters count as one."""
    return len(text.split()) + len(_UNSPACED.findall(text)) // 2


def items_of(value: Any) -> list[Any] | None:
    """The items of a list, or of one as JSON; None where it is none."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return list(value) if isinstance(value, list | tuple) else None


def _is_json(value: Any) -> bool:
    """Whether a text looks like a list, or like an object with answers."""
    text = value.strip() if isinstance(value, str) else ""
    return (text[:1] == "[" and text[-1:] == "]") or (text[:1] == "{" and "answer_start" in text)


def _of_nested(name: str, sample: Sequence[Any]) -> Column:
    """A column of lists, of objects, or of such as JSON."""
    first = sample[0]
    if isinstance(first, dict) or (isinstance(first, str) and first.strip()[:1] == "{"):
        if "answer_start" in str(first):
            return Column(name, "answers")
        is_image = isinstance(first, dict) and "bytes" in first
        return Column(name, "image" if is_image else "other")
    lists = [items_of(value) for value in sample]
    rows = [row for row in lists if row is not None]
    if len(rows) < len(lists):
        odd = next(str(value) for value, row in zip(sample, lists, strict=True) if row is None)
        note = f"looks like lists, but {odd[:40]!r} is no JSON, whose texts stand in double quotes"
        return Column(name, "other", note=note)
    flat = [item for row in rows for item in row]
    if flat and all(isinstance(item, dict) and "answer_start" in item for item in flat):
        return Column(name, "answers")
    if not all(map(is_plain, flat)):
        return Column(name, "other")
    distinct, mean = len({*map(str, flat)}), len(flat) / len(rows)
    sizes, twice = {len(row) for row in rows}, any(len({*map(str, r)}) < len(r) for r in rows)
    if len(sizes) == 1 and twice and {*map(str, flat)} <= {"0", "1", "True", "False", "0.0", "1.0"}:
        return Column(name, "hot", sizes.pop())
    texts = [item for item in flat if isinstance(item, str)]
    kind = "words" if len(texts) == len(flat) and mean >= 3 and twice else "list"
    return Column(name, kind, distinct, words=mean)


def _of_numbers(column: Column, texts: Sequence[str], numbers: Sequence[float]) -> Column:
    """Flags, classes by number, numbers of rows, and measured numbers."""
    distinct, size = column.distinct, len(texts)
    column = column._replace(whole=all(number.is_integer() for number in numbers))
    if {*texts} == {"0", "1"} or {*texts} == {"0.0", "1.0"}:
        return column._replace(kind="flag")
    if distinct == 1:
        return column._replace(kind="constant")
    if not column.whole:
        return column._replace(kind="number")
    steps = {b - a for a, b in itertools.pairwise(numbers)}
    counted = len(steps) == 1 and size > 4
    if distinct == size and (counted or (size > 20 and max(map(abs, numbers)) >= size - 1)):
        return column._replace(kind="id")
    few = distinct <= 20 or (distinct <= _MOST_CLASSES and 5 * distinct <= size)
    return column._replace(kind="class" if few and distinct < size else "number")


def _of_texts(column: Column, texts: Sequence[str], sample: Sequence[str]) -> Column:
    """Everything that stands in letters."""
    distinct, size = column.distinct, len(texts)
    lower = {text.lower() for text in texts[:100]}
    if distinct == 2 and lower in _YES_NO:
        return column._replace(kind="flag")
    if distinct == 1:
        return column._replace(kind="constant" if size > 1 else "text")
    for kind, pattern in (("date", _DATE), ("link", _LINK), ("file", _IMAGE)):
        if _share(sample, pattern) > 0.9:
            return column._replace(kind=kind)
    if _share(sample, _DECIMAL_COMMA) > 0.9:
        note = "its numbers have decimal commas, which are not read as numbers: write 4.5 for 4,5"
        column = column._replace(note=note)
    longest = max(map(len, sample))
    short = longest <= _LONGEST_CLASS and column.words <= 5
    separator = _find_separator(sample) if column.words < 12 and longest <= 200 else ""
    if separator:
        return column._replace(kind="joined", separator=separator)
    recurs = 2 * distinct <= size or (size < 40 and distinct <= 0.75 * size)
    if short and recurs and distinct <= _MOST_CLASSES:
        return column._replace(kind="class")
    if column.words >= 2.5 or _share(sample, re.compile(r".*\s.*", re.DOTALL)) > 0.9:
        return column._replace(kind="text")
    if distinct == size and not any(map(str.isspace, "".join(sample[:200]))):
        digits = sum(any(map(str.isdigit, text)) for text in sample)
        return column._replace(kind="id" if 2 * digits > len(sample) else "name")
    return column._replace(kind="name")


def _share(sample: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(pattern.fullmatch(text) is not None for text in sample) / len(sample)


def _find_separator(sample: Sequence[str]) -> str:
    """What parts the fields into names that recur; empty where nothing does."""
    whole = len({*sample})
    for separator in SEPARATORS:
        joined = [text for text in sample if separator in text]
        if 20 * len(joined) < len(sample) or len(joined) < 2:
            continue
        rows = [[part.strip() for part in text.split(separator)] for text in sample]
        counts: dict[str, int] = {}
        partners: dict[str, set[str]] = {}
        for row in rows:
            for part in row:
                counts[part] = counts.get(part, 0) + 1
                partners.setdefault(part, set()).add(separator.join(row))
        parts = [part for text in joined for part in map(str.strip, text.split(separator))]
        if not all(part and len(part) <= _LONGEST_CLASS for part in parts):
            continue
        if any(count_words(part) > 3 for part in parts):
            continue
        # A part of several classes stands in several fields; `Food, Drinks` is one class.
        several = sum(len(partners[part]) > 1 for part in {*parts})
        if 3 * several >= 2 * len({*parts}) and len(counts) < max(whole, 3) + 1:
            recurring = sum(counts[part] > 1 for part in counts)
            if 2 * recurring >= len(counts):
                return separator
    return ""
