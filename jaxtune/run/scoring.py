"""`--mode=eval`: the scores of a saved model on labelled data."""

from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import read_evaluation
from jaxtune.data.text.retrieval import is_retrieval
from jaxtune.io.json_files import read_json_object
from jaxtune.run.console import Report
from jaxtune.run.encoding import encode_splits
from jaxtune.run.evaluate import all_scores
from jaxtune.run.own_goals import scored
from jaxtune.run.predictions import outputs_of
from jaxtune.run.retrieval import retrieve
from jaxtune.run.saved import open_saved
from jaxtune.run.trackers import finite
from jaxtune.settings import Settings
from jaxtune.settings.data import SourceSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks.task import keeping


def score(
    settings: Settings, workdir: Path, report: Report, token_cache_dir: Path | None = None
) -> dict[str, dict[str, float | None]]:
    """Scores a saved model on the validation and test splits of the config's data, or on all of it.

    Data without such splits is scored as a whole, but for rows that the model was trained on.

    Args:
      settings: `model.path` is scored where `workdir` holds no `model/` of its own.
      workdir: of a finished run; nothing is written to it.
      report: where a person reads along.
      token_cache_dir: a folder that keeps tokens from run to run; None keeps none.

    Returns:
      Scores by name, by split; None where one is undefined.

    Raises:
      UserError: no saved model, or data that does not fit it.
    """
    own = workdir / "model"
    folder = str(own) if own.is_dir() else settings.model.path
    dtype, head = settings.precision.compute_dtype, settings.model.head
    saved = open_saved(folder, dtype, settings.data, head=head)
    report.line(f"scoring {folder}")
    if saved.task.name != settings.task:
        raise UserError(
            f"{folder} is a model of {saved.task.name}, but config.task is {settings.task}."
        )
    folder_of_data = Path(settings.data.source.path).expanduser()
    if is_retrieval(folder_of_data):
        found = retrieve(saved, folder_of_data, settings.train.eval_batch_size)
        report.table("test", [(name, f"{value:.4f}") for name, value in found.items()])
        return {"test": {name: finite(value) for name, value in found.items()}}
    names = saved.pretrained.class_names
    trained_on = _source_of_run(saved.pretrained.folder.parent)
    task = scored(keeping(saved.task, token_cache_dir), settings.train.scores)
    data = read_evaluation(settings.data, task.data.reader, names, trained_on)
    examples, cuts = encode_splits(
        task,
        data,
        saved.processor,
        saved.data,
        names,
        lambda part: None,  # each is checked where its outputs are made
        report,
    )
    for note in (*data.notes, *cuts):
        report.line(note)
    found = {}
    for split, part in examples.items():
        means, outputs = outputs_of(saved, part, settings.train.eval_batch_size, report, split)
        scores = all_scores(task, means, outputs, part)
        found[split] = {name: finite(value) for name, value in scores.items()}
        report.table(split, [(name, f"{value:.4f}") for name, value in scores.items()])
    return found


def _source_of_run(workdir: Path) -> SourceSettings | None:
    """The data of the run whose workdir it is; None where it is none."""
    try:
        data = read_json_object(workdir / "config.json")["data"]
        return from_dict(SourceSettings, {name: data[name] for name in ("path", "name", "sha256")})
    except (OSError, UserError, KeyError, TypeError):
        return None
