"""What can hardly be meant, in classes and texts: said before training, with counts."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxtune.data.text.labels import are_measures, number_of
from jaxtune.data.text.no_label import are_none

_FEW_ROWS = 5
_SHOWN = 5  # names in a note
_SAMPLE = 1000  # texts that are looked at
_SEPARATOR = re.compile(r"\s*[,;|/]\s*")


def of_classes(names: Sequence[str], counts: Int[np.ndarray, " c"]) -> list[str]:
    """Notes on classes of few rows, of like spelling, that look joined, or that are numbers.

    Args:
      names: c classes.
      counts: training rows of each.
    """
    found = [_rare(names, counts), _alike(names), _joined(names), _unlabelled(names, counts)]
    if are_measures(names):
        found.append(
            f"the {len(names)} classes are numbers, such as {names[0]}: to predict numbers, set"
            " config.task=regression"
        )
    return [note for note in found if note]


def of_texts(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A note for each column of texts of which most are numbers."""
    sample = rows[:: -(-len(rows) // _SAMPLE) or 1]
    notes = []
    for place, texts in enumerate(zip(*sample, strict=True), start=1):
        count = sum(np.isfinite(number_of(text)) for text in texts)
        if 2 * count > len(texts):
            column = f"column {place} of config.data.text_columns"
            told = f"{count} of {len(texts)} texts in {column} are numbers"
            notes.append(f"{told}, such as {texts[0][:40]!r}: is it a column of texts?")
    return notes


def _unlabelled(names: Sequence[str], counts: Int[np.ndarray, " c"]) -> str:
    """Classes that stand for no label elsewhere."""
    told = [f"{name} ({counts[names.index(name)]} rows)" for name in are_none(names)]
    if not told:
        return ""
    remedy = f"set config.data.no_label={','.join(are_none(names))}"
    return f"a class is called {_listed(told)}: where that stands for no label, {remedy}"


def _rare(names: Sequence[str], counts: Int[np.ndarray, " c"]) -> str:
    """Classes of fewer rows than can be learnt from."""
    rare = np.flatnonzero(counts < _FEW_ROWS)
    rare = rare[np.argsort(counts[rare], kind="stable")]
    if not len(rare):
        return ""
    told = _listed([f"{names[i][:40]} ({counts[i]})" for i in rare])
    return (
        f"{len(rare)} of {len(names)} classes have fewer than {_FEW_ROWS} rows in train: {told}; is"
        " a label misspelt?"
    )


def _alike(names: Sequence[str]) -> str:
    """Classes whose names differ in case, width, or in characters that do not show."""
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(_folded(name), []).append(name)
    alike = [" and ".join(map(repr, same)) for same in folded.values() if len(same) > 1]
    return f"classes that differ in case or spacing alone: {_listed(alike)}" if alike else ""


def _folded(name: str) -> str:
    """A name in small letters of one form, without characters that do not show."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())


def _joined(names: Sequence[str]) -> str:
    """Classes that look like several in one field, as their parts are classes elsewhere."""
    parts = {name: _SEPARATOR.split(name) for name in names}
    joined = {name: own for name, own in parts.items() if len(own) > 1 and all(own)}
    seen = Counter(part for own in parts.values() for part in set(own))
    told = [name for name, own in joined.items() if all(seen[part] > 1 for part in own)]
    if not told:
        return ""
    return (
        f"{len(told)} of {len(names)} classes look like several in one field: {_listed(told)}; the"
        " task multi_label parts them at config.data.label_separator"
    )


def _listed(items: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(item[:100] for item in items[:_SHOWN]) + more
