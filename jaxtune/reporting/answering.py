"""The sections of question answering: answers, the no-answer threshold, and the worst answers."""

from typing import Any

import numpy as np

from jaxtune.reporting import errors, intervals, slices, thresholds
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.parts import Section, Table, number
from jaxtune.run.predictions_folder import Kept


def sections(facts: Facts, kept: Kept, column: Any) -> list[Section | None]:
    """Of questions."""
    del facts
    arrays = kept.arrays
    exact, f1, has = arrays["exact"], arrays["f1"], arrays["has_answer"]
    kinds = [("all", np.arange(len(f1)))]
    if has.any() and not has.all():
        kinds += [("with an answer", np.flatnonzero(has)), ("without", np.flatnonzero(~has))]
    rows = [
        (
            label,
            f"{len(part):,}",
            intervals.told(float(exact[part].sum()), len(part)),
            number(float(f1[part].mean())),
            number(float((arrays["sure"][part]).mean())),
        )
        for label, part in kinds
    ]
    header = ("questions", "rows", "exact match", "F1", "mean probability")
    measures = [("exact match", slices.share(exact)), ("F1", slices.mean(f1))]
    note = "Chosen by the probability of the answer times what it lacks in F1."
    return [
        Section("Answers", tables=[Table(header, rows)]),
        thresholds.of_answers(kept),
        slices.section(kept, measures, column),
        errors.section(kept, (), "Most confident wrong answers", note),
    ]
