"""The sections of tasks with classes: of texts, of images, and of any number of classes a row."""

from typing import Any

import numpy as np

from jaxtune.data.sources.class_sets import ClassSets
from jaxtune.reporting import calibrated, errors, slices, thresholds
from jaxtune.reporting.class_rows import class_rows
from jaxtune.reporting.class_tables import class_table, confusion, scores_of, single_scores
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.parts import Section, number
from jaxtune.run.predictions_folder import Kept

_NOTE = "Chosen by the probability of what was predicted, the surest first."


def single_sections(facts: Facts, kept: Kept, column: Any) -> list[Section | None]:
    """Of rows with one class each."""
    names = facts.results["classes"]
    rows = class_rows(kept, names)
    right = rows.predicted == rows.labels
    losses = rows.log_sums - kept.arrays["label_logits"].astype(np.float64)
    plot, notes, pairs = confusion(rows.labels, rows.predicted, names)
    scores = single_scores(rows.labels, rows.predicted, len(names))
    temperature = _temperature(facts)
    measures = [("accuracy", slices.share(right)), ("loss", slices.mean(losses))]
    return [
        Section("Classes", notes, [plot], [class_table(scores, names), pairs]),
        calibrated.section(rows, temperature, kept.split),
        slices.section(kept, measures, column),
        errors.section(kept, names, "Most confident errors", _NOTE),
    ]


def _temperature(facts: Facts) -> float | None:
    """By which jaxtune.json says that logits are to be divided; None where it says nothing."""
    value = facts.card.get("temperature")
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


def set_sections(facts: Facts, kept: Kept, column: Any) -> list[Section | None]:
    """Of rows with any number of classes."""
    names, arrays = facts.results["classes"], kept.arrays
    n, size = len(arrays["lengths"]), max([len(names), *(arrays["label_classes"] + 1)])
    sets = ClassSets(arrays["label_classes"], arrays["label_offsets"], int(size))
    owners, places = np.nonzero(arrays["logits"] > 0)
    found = arrays["classes"][owners, places] if "classes" in arrays else places
    of_rows = np.repeat(np.arange(n), np.diff(sets.offsets))
    hit = arrays["label_logits"] > 0  # NaN is not
    counts = (sets.classes, found, sets.classes[hit])
    scores = scores_of(*(np.bincount(part, minlength=size)[: len(names)] for part in counts))
    true, said, hits = (np.bincount(part, minlength=n) for part in (of_rows, owners, of_rows[hit]))
    right = (true == hits) & (said == hits)

    def micro_f1(rows: np.ndarray) -> str:
        both = int((true[rows] + said[rows]).sum())
        return number(2 * float(hits[rows].sum()) / both if both else None)

    measures = [("every class right", slices.share(right)), ("micro F1", micro_f1)]
    return [
        Section("Classes", tables=[class_table(scores, names)]),
        thresholds.of_sets(kept, names),
        slices.section(kept, measures, column),
        errors.section(kept, names, "Most confident errors", "Chosen by their surest wrong class."),
    ]
