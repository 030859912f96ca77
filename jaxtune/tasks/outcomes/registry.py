"""What is kept of each task's outputs."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtune.tasks.outcomes.answers import of_answers
from jaxtune.tasks.outcomes.blocks import of_blocks
from jaxtune.tasks.outcomes.classes import of_images, of_sets, of_single
from jaxtune.tasks.outcomes.numbers import of_numbers
from jaxtune.tasks.outcomes.outcome import Outcome
from jaxtune.tasks.outcomes.tags import of_tags

OUTCOMES: Mapping[str, Callable[[Any, Any], Outcome]] = {
    "classification": of_single,
    "image_classification": of_images,
    "few_shot": of_single,
    "multi_label": of_sets,
    "regression": of_numbers,
    "token_classification": of_tags,
    "question_answering": of_answers,
    "causal_lm": of_blocks,
    "masked_lm": of_blocks,
}
"""(outputs of all examples, examples) -> what is kept, by the name of the task."""
