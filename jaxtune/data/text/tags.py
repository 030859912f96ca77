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


def entities(tags: Sequence[str], prefixed: bool) -> list[Entity]:
    """The entities of one sentence, so read that no sequence of tags is malformed.

    An entity is a run of words of one type; a B- or S- begins another, and so does what follows an
    E- or S-. That is what conlleval counts, and seqeval unless it is asked for `mode="strict"`,
    which takes no entity that an I- begins.

    Args:
      tags: one for each word.
      prefixed: whether they have prefixes. The type of `B` and `I` alone is `_`.

    Source: Tjong Kim Sang and De Meulder 2003, Introduction to the CoNLL-2003 Shared Task.
    """
    found: list[Entity] = []
    before, last = "O", ""  # prefix and type of the word before
    for i, tag in enumerate(tags):
        if tag == OUTSIDE:
            before = "O"
            continue
        prefix, kind = (tag[0], tag[2:] or "_") if prefixed else ("I", tag)
        if prefix in "BS" or before in "OES" or kind != last:
            found.append((kind, i, i))
        else:
            found[-1] = (kind, found[-1][1], i)
        before, last = prefix, kind
    return found
