"""What a report shows of the outputs of each task."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtune.reporting import answering, classification, language, regression, tagging
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.parts import Section
from jaxtune.run.predictions_folder import Kept

SECTIONS: Mapping[str, Callable[[Facts, Kept, Any], list[Section | None]]] = {
    "classification": classification.single_sections,
    "image_classification": classification.single_sections,
    "few_shot": classification.single_sections,
    "multi_label": classification.set_sections,
    "regression": regression.sections,
    "token_classification": tagging.sections,
    "question_answering": answering.sections,
    "causal_lm": language.sections,
    "masked_lm": language.sections,
}
"""(facts, what is kept, a column's name and values or None) -> sections, by the task's name."""
