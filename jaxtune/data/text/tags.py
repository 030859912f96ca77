"""Tags of words: prefixed (BIO, BIOES) or plain, and the entities that they mark.

A prefixed tag is `B-person` (begin), `I-person` (inside), `E-person` (end) or `S-person` (single
word), or `B` alone where there is one type of entity. A plain tag is the type itself; equal ones in
a row are one entity. `O` is outside of any entity in both.

Source: Ramshaw and Marcus 1995, Text Chunking using Transformation-Based Learning; Ratinov and Roth
2009, Design Challenges and Misconceptions in Named Entity Recognition (BIOES as BILOU).
"""

import re
from collections.abc import Iterable, Sequence

OUTSIDE = "O"

_PREFIXED = re.compile(r"(?P<prefix>[BIES])(?P<type>-.+)?", re.DOTALL)

Entity = tuple[str, int, int]
"""Type, first word and last word (inclusive)."""


def is_prefixed(tag: str) -> bool:
    """Whether a tag has a prefix of BIO or BIOES; `O` has none."""
    return _PREFIXED.fullmatch(tag) is not None


def have_prefixes(tags: Iterable[str]) -> bool:
    """Whether all tags but `O` have a prefix."""
    return all(tag == OUTSIDE or is_prefixed(tag) for tag in tags)


def complete(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags that a model has an output for: `O` first, the others sorted.

    Of each type of prefixed tags there are B- and I-, and E- and S- too where any tag has one of
    those: a type that has only single words in training may have longer entities elsewhere.

    Args:
      tags: all prefixed or all plain; `O` is added where it is missing.
    """
    rest = set(tags) - {OUTSIDE}
    if have_prefixes(rest):
        parts = [(tag[0], tag[1:]) for tag in rest]
        prefixes = "BIES" if {"E", "S"} & {prefix for prefix, _ in parts} else "BI"
        rest = {prefix + kind for _, kind in parts for prefix in prefixes}
    return (OUTSIDE, *sorted(rest))


def for_seqeval(tags: Sequence[str], prefixed: bool) -> list[str]:
    """Prefixed tags as they are, plain ones with I-, as seqeval reads them."""
    return [tag if prefixed or tag == OUTSIDE else f"I-{tag}" for tag in tags]


def entities(tags: Sequence[str], prefixed: bool) -> list[Entity]:
    """The entities of one sentence, found as conlleval does, so that no sequence is malformed.

    Args:
      tags: one for each word.
      prefixed: whether they have prefixes. The type of `B` and `I` alone is `_`.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    return get_entities(for_seqeval(tags, prefixed))
