"""From a finished run's workdir to report.html, figures/ and the card of its model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.core.extras import is_installed
from jaxtune.data.sources.numbered import column_of
from jaxtune.io.atomic import write_atomic
from jaxtune.reporting import curves, figures, model_card, overview, page
from jaxtune.reporting.facts import Facts, read_facts
from jaxtune.reporting.parts import Plot, Section
from jaxtune.reporting.places import name_of
from jaxtune.reporting.registry import SECTIONS
from jaxtune.run import predictions_folder
from jaxtune.run.config import read_settings
from jaxtune.run.console import Report
from jaxtune.run.predictions_folder import Kept
from jaxtune.tasks.registry import find_task

_NO_FIGURES = (
    'report.html has no figures, as matplotlib is absent: pip install "jaxtune[report]" brings it,'
    " and `jaxtune report` makes them."
)


def write(workdir: Path, report: Report, slice_by: str | None = None) -> Path:
    """Makes `report.html`, `figures/` and `model/README.md` anew.

    Args:
      workdir: of a run that has come to its end.
      report: where a person reads along.
      slice_by: a column of the data, by whose values scores are told too.

    Returns:
      The report's file.

    Raises:
      UserError: no finished run, no such column, or files that cannot be written.
    """
    facts = read_facts(workdir)
    facts = facts._replace(kept=_kept(facts, report))
    column = None if slice_by is None else (slice_by, _column(facts, slice_by))
    sections = _sections(facts, column)
    plots = [plot for section in sections for plot in section.plots]
    drawn = _drawn(plots, workdir / "figures", report)
    task = facts.results["task"].replace("_", " ")
    title = f"{task}: {name_of(facts.config['model']['path'])}"
    lead = f"{name_of(facts.config['data']['path'])}, in {workdir.resolve().name}"
    file = workdir / "report.html"
    write_atomic(file, page.render(title, lead, sections, drawn))
    write_atomic(workdir / "model" / "README.md", model_card.render(facts))
    return file


def try_to_write(workdir: Path, report: Report) -> None:
    """As `write`, at the end of a run, which fails for no report: a line says why there is none."""
    try:
        report.line(f"report: {write(workdir, report)}")
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        report.line(f"no report: {kind}{error}")


def _sections(facts: Facts, column: tuple[str, Sequence[Any]] | None) -> list[Section]:
    """All sections, in order."""
    kept = facts.kept
    of_task: Callable[..., list[Section | None]] | None = SECTIONS.get(facts.results["task"])
    own = of_task(facts, kept, column) if of_task is not None and kept is not None else []
    found = [overview.scores(facts, kept), curves.section(facts), *own, *overview.training(facts)]
    return [section for section in found if section is not None]


def _kept(facts: Facts, report: Report) -> Kept | None:
    """What the best step gave, computed with the saved model where the run has not kept it."""
    if facts.results["task"] not in SECTIONS:
        return None
    kept = predictions_folder.read(facts.workdir)
    if kept is not None and kept.step == facts.results.get("best_step"):
        return kept
    from jaxtune.run.kept_again import keep_again

    settings = read_settings(facts.workdir / "config.json")
    try:
        return keep_again(settings, facts.workdir, facts.results.get("best_step", -1), report)
    except UserError as error:
        report.line(f"the report is of the scores alone: {error}")
        return None


def _column(facts: Facts, name: str) -> list[Any]:
    """A column's value in each row of the split that the report is on."""
    if facts.kept is None:
        raise UserError("--slice_by: what the model gives for each row is not known.")
    settings = read_settings(facts.workdir / "config.json")
    reader = find_task(settings.task).data.reader
    values = column_of(settings.data, reader, facts.kept.split, name)
    count = len(facts.kept.arrays["lengths"])
    if len(values) != count:
        raise UserError(
            f"--slice_by={name}: found {len(values)} rows of {facts.kept.split}, but the run scored"
            f" {count} examples, which are parts of rows or other ones: no column says what they"
            " are."
        )
    return values


def _drawn(plots: Sequence[Plot], folder: Path, report: Report) -> dict[str, Any]:
    """The figures; none, and why, where they cannot be drawn."""
    if not is_installed("matplotlib"):
        report.line(_NO_FIGURES)
        return {}
    return figures.draw(plots, folder)
