"""From the checked rows of every split to its examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtune.data.sources.rows import Data, class_order
from jaxtune.run.console import Report
from jaxtune.run.packed import Packed, compact
from jaxtune.run.setup import Held
from jaxtune.settings.data import DataSettings
from jaxtune.tasks.task import Task

_MANY_UNKNOWN = 0.05  # share of the tokens


def encode_splits(
    task: Task,
    data: Data,
    processor: Any,
    settings: DataSettings,
    class_names: Sequence[str],
    check: Callable[[Any], None],
    report: Report,
) -> tuple[dict[str, Any], list[str]]:
    """Examples by split, and notes for a person.

    Args:
      task: how rows become examples.
      data: checked rows.
      processor: tokenizer or image processor.
      settings: of the data.
      class_names: the model's order of the data's classes, which the labels then follow.
      check: refuses examples that do not fit the model.
      report: shows progress.
    """
    order = class_order(data.class_names, class_names)
    examples, notes = {}, list(processor.notes)
    for split, rows in data.splits.items():
        if len(order):
            rows = rows._replace(labels=task.data.reorder(rows.labels, order))
        track = report.track(f"reading {split}")
        examples[split], more = task.data.encode(rows, processor, settings, track)
        check(examples[split])
        more += _unknown_tokens(examples[split], processor)
        notes += [f"{split}: {note}" for note in more]
    return examples, notes


def held_of(data: Data, examples: Mapping[str, Any]) -> Held:
    """What a report needs of the rows that it is on, beside their examples.

    Args:
      data: the rows of all splits.
      examples: by split.
    """
    split = "test" if "test" in data.splits else "validation"
    rows, count = data.splits[split], len(examples[split].lengths)
    if len(rows.inputs) != count:
        return Held(split)  # an example is a part of a row
    inputs = compact(rows).inputs
    return Held(split, inputs if isinstance(inputs, Packed) else None, rows.places)


def _unknown_tokens(examples: Any, processor: Any) -> list[str]:
    """A note where the vocabulary lacks many of the words."""
    unknown = getattr(processor, "unk_token_id", None)
    # GPT-2's is also the end of a text.
    if unknown is None or unknown in (processor.pad_token_id, processor.eos_token_id):
        return []
    ids = examples.tokens.input_ids
    count = int(np.count_nonzero(ids == unknown))
    if count < _MANY_UNKNOWN * len(ids):
        return []
    share = f"{count} of {len(ids)} tokens ({count / len(ids):.0%})"
    return [
        f"{share} are unknown to the model's vocabulary: are the texts in a language or script that"
        " it was not made for?"
    ]
