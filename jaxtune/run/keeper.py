"""Keeps what the best step gives on held-out rows, of the outputs that its scores are made of."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.images.decode import decode
from jaxtune.parallel import multihost
from jaxtune.run import predictions_folder
from jaxtune.run.predictions_folder import Kept
from jaxtune.run.setup import Held, Run
from jaxtune.settings.data import ColumnSettings
from jaxtune.tasks.outcomes.outcome import Outcome, Told
from jaxtune.tasks.outcomes.registry import OUTCOMES
from jaxtune.tasks.task import Task

SHOWN = 20
"""Rows whose inputs are kept."""

_LONGEST = 20_000  # characters of a text
_EDGE = 96  # pixels of a small image


def keeping(run: Run, say: Callable[[str], Any]) -> Callable[[Any, int], Kept | None]:
    """(outputs, step) -> what a report needs of them; of several processes, the first one keeps.

    Args:
      run: whose examples are held, and not the run itself with its parameters.
      say: is told why nothing is kept.
    """
    task, held = run.task, run.data.held
    examples = run.data.examples[held.split]
    processor, columns = run.data.processor, run.settings.data.columns

    def take(outputs: Any, step: int) -> Kept | None:
        if not multihost.is_first():
            return None
        try:
            return keep(task, outputs, examples, held, step, processor, columns)
        except Exception as error:  # what is to be looked at afterwards ends no run
            say(f"nothing is kept for a report: {type(error).__name__}: {error}")
            return None

    return take


def write(workdir: Path, kept: Kept | None, say: Callable[[str], Any]) -> None:
    """Writes `predictions/`, where anything is kept and the disk takes it."""
    if kept is None:
        return
    try:
        predictions_folder.write(workdir, kept)
    except UserError as error:
        say(f"nothing is kept for a report: {error}")


def keep(
    task: Task,
    outputs: Any,
    examples: Any,
    held: Held,
    step: int,
    processor: Any,
    columns: ColumnSettings,
) -> Kept | None:
    """What is kept of the outputs of a split; None of a task of which nothing is known.

    Args:
      task: of the outputs.
      outputs: of all examples, as `predict_all` gives them.
      examples: of the split, with labels.
      held: what the examples do not say.
      step: after which they were computed.
      processor: the tokenizer, which reads blocks of tokens back.
      columns: name the texts.
    """
    if task.name not in OUTCOMES or outputs is None:
        return None
    outcome = OUTCOMES[task.name](outputs, examples)
    order = np.argsort(-outcome.badness, kind="stable")[:SHOWN]
    worst = [int(i) for i in order if outcome.badness[i] > 0]
    rows = [_shown(i, outcome, examples, held, processor, columns) for i in worst]
    arrays = dict(outcome.arrays) | {"lengths": outcome.lengths}
    return Kept(task.name, held.split, step, outcome.unit, outcome.names, arrays, rows)


def _shown(
    i: int,
    outcome: Outcome,
    examples: Any,
    held: Held,
    processor: Any,
    columns: ColumnSettings,
) -> Told:
    """A row with what was said of it, and its texts or its image."""
    told: Told = {"index": i} | outcome.tell(i)
    if held.places is not None:
        told["place"] = int(held.places[i])
    if held.texts is not None:
        told["texts"] = [
            list(pair) for pair in zip(columns.text_columns, held.texts[i], strict=True)
        ]
    elif hasattr(examples, "images"):
        source = examples.images[i]
        path = Path(source.name)
        own = path.relative_to(path.anchor).parts[-2:]  # with the folder, which may be a class
        told |= {"file": "/".join(own), "image": _small(decode(source))}
    elif "texts" not in told:
        ids = examples.tokens.input_ids[examples.tokens.offsets[i] : examples.tokens.offsets[i + 1]]
        told["texts"] = [["text", processor.backend_tokenizer.decode(ids.tolist())]]
    told["texts"] = [[name, text[:_LONGEST]] for name, text in told.get("texts", [])]
    return told


def _small(image: Any) -> str:
    """An image as a small PNG, in base64."""
    image.thumbnail((_EDGE, _EDGE))
    stream = io.BytesIO()
    image.save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode("ascii")
