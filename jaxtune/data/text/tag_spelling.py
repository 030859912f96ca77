"""How corpora write tags, and how they are read: `O` for outside, and `B-person`.

What stands for outside is `O`, but also `0`, `o`, `_` or `-`; `B_person` is `B-person`; blanks
around a tag are no part of it.
"""

import re
from collections import Counter
from collections.abc import Mapping

from jaxtune.data.sources.table import Table
from jaxtune.data.text import tags

_OUTSIDE = ("0", "o", "_", "-")
_UNDERSCORED = re.compile(r"[BIES]_.+", re.DOTALL)


def find_spelling(found: Mapping[str, int]) -> dict[str, str]:
    """Tags that are written otherwise -> as they are read.

    `0`, `o`, `_` or `-` are outside where the other tags have prefixes, or where there is no `O`
    and no tag is more frequent: a tag set without prefixes may have them for something else.

    Args:
      found: tag -> number of words that have it.
    """
    stripped = Counter[str]()
    for tag, count in found.items():
        stripped[tag.strip()] += count
    plain = {tag for tag in stripped if tag != tags.OUTSIDE and tag not in _OUTSIDE}
    underscored = bool(plain) and all(
        _UNDERSCORED.fullmatch(tag) or tags.is_prefixed(tag) for tag in plain
    )
    numbers = bool(plain) and all(tag.isdigit() for tag in plain)
    most = max(stripped.values(), default=0)
    outside = {
        tag
        for tag in _OUTSIDE
        if tag in stripped
        and plain
        and not numbers
        and (underscored or (tags.OUTSIDE not in stripped and stripped[tag] == most))
    }

    def read(tag: str) -> str:
        tag = tag.strip()
        if tag in outside:
            return tags.OUTSIDE
        return f"{tag[0]}-{tag[2:]}" if underscored and _UNDERSCORED.fullmatch(tag) else tag

    return {tag: read(tag) for tag in found if read(tag) != tag}


def notes(source: str, found: Mapping[str, int], spelling: Mapping[str, str]) -> tuple[str, ...]:
    """What a person is told: how many words have tags that are read otherwise, or are doubtful.

    Args:
      source: of the tags.
      found: tag -> number of words that have it.
      spelling: from `find_spelling`.
    """
    changed = [tag for tag in found if tag in spelling]
    doubtful = [tag for tag in _OUTSIDE if tag in found and tag not in spelling]
    told = ", ".join(f"{tag!r} as {spelling[tag]!r} ({found[tag]} words)" for tag in changed[:5])
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    said = [f"{source}: read the tag {told}{more}"] if changed else []
    for tag in doubtful:
        said.append(f"{source}: the tag {tag!r} ({found[tag]} words) counts as a type of its own")
    return tuple(said)


def count(table: Table, name: str) -> Counter[str]:
    """How many words have each tag, of a column of lists of tags."""
    lists = (value for value in table.columns.get(name, ()) if isinstance(value, list))
    return Counter(tag for value in lists for tag in value if isinstance(tag, str))
