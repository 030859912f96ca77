"""What a saved model gives on held-out rows, for a report of a run that has kept nothing."""

from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import read_evaluation
from jaxtune.run import predictions_folder
from jaxtune.run.console import Report
from jaxtune.run.encoding import encode_splits, held_of
from jaxtune.run.keeper import keep
from jaxtune.run.predictions import outputs_of
from jaxtune.run.predictions_folder import Kept
from jaxtune.run.saved import open_saved
from jaxtune.settings import Settings


def keep_again(settings: Settings, workdir: Path, step: int, report: Report) -> Kept | None:
    """Computes what is kept with the model of a workdir, and writes `predictions/`.

    Args:
      settings: of the run, with digests.
      workdir: with `model/`.
      step: the best one.
      report: shows the progress.

    Raises:
      UserError: the data is gone or has changed, or the model is damaged.
    """
    source = settings.data.source
    if source.path == "memory":
        raise UserError("the run was on rows in memory, which are no more.")
    saved = open_saved(workdir / "model", settings.precision.compute_dtype, settings.data)
    names, task = saved.pretrained.class_names, saved.task
    data = read_evaluation(settings.data, task.data.reader, names, source)
    split = "test" if "test" in data.splits else "validation"
    if split not in data.splits:
        raise UserError(f"{source.path} has neither test nor validation rows.")
    data = data._replace(splits={split: data.splits[split]})
    examples, _ = encode_splits(
        task,
        data,
        saved.processor,
        saved.data,
        names,
        lambda part: None,  # they are checked where their outputs are made
        report,
    )
    held = held_of(data, examples)
    size = settings.train.eval_batch_size
    _, outputs = outputs_of(saved, examples[split], size, report, split)
    columns = settings.data.columns
    kept = keep(task, outputs, examples[split], held, step, saved.processor, columns)
    if kept is not None:
        predictions_folder.write(workdir, kept)
    return kept
