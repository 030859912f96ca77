"""The sections of token classification: each type of entity, and the worst sentences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtune.reporting import errors, slices
from jaxtune.reporting.class_tables import Scores, class_table, scores_of
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.parts import Section
from jaxtune.run.predictions_folder import Kept
from jaxtune.tasks.outcomes.tags import entities_of


def sections(facts: Facts, kept: Kept, column: Any) -> list[Section | None]:
    """Of sentences with a tag for each word."""
    del facts
    arrays = kept.arrays
    types, scores = entity_scores(arrays, kept.names)
    wrong = arrays["right"] != arrays["predicted"]
    n, sizes = len(arrays["offsets"]) - 1, np.diff(arrays["offsets"])
    errors_of = np.bincount(np.repeat(np.arange(n), sizes), wrong, n)

    def words(rows: np.ndarray) -> str:
        total = int(sizes[rows].sum())
        return f"{1 - float(errors_of[rows].sum()) / total:.4f}" if total else "-"

    measures = [("sentences all right", slices.share(errors_of == 0)), ("words right", words)]
    note = (
        "An entity is right where its type, its first and its last word are, as conlleval has it."
    )
    found = errors.section(
        kept, (), "Worst sentences", "Chosen by the probabilities of their wrong tags, all added."
    )
    table = class_table(scores, types, "type", "entities")
    return [
        Section("Entities", [note], tables=[table]),
        slices.section(kept, measures, column),
        found,
    ]


def entity_scores(arrays: Any, names: Sequence[str]) -> tuple[list[str], Scores]:
    """The types of entities that occur, sorted, and the scores of each."""
    parts = [
        {(kind, i, first, last) for i, row in enumerate(found) for kind, first, last in row}
        for found in (entities_of(arrays, names, side) for side in ("right", "predicted"))
    ]
    types = sorted({kind for part in parts for kind, *_ in part})
    place = {kind: i for i, kind in enumerate(types)}
    counts = [
        np.bincount(np.array([place[kind] for kind, *_ in part], np.int64), minlength=len(types))
        for part in (*parts, parts[0] & parts[1])
    ]
    return types, scores_of(*counts)
