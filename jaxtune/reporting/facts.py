"""What a workdir says of its run, read from its files alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.export.model_folder import read_card
from jaxtune.io.json_files import read_json_object
from jaxtune.run.predictions_folder import Kept
from jaxtune.run.workdir import kept_settings


class Facts(NamedTuple):
    """A finished run.

    Attributes:
      workdir: its folder.
      config: the settings, as config.json has them, with defaults for what it lacks.
      results: results.json.
      metrics: the rows of metrics.jsonl, in order.
      card: jaxtune.json of the model.
      kept: what the best step gave on held-out rows; None where that is not known.
    """

    workdir: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    card: Mapping[str, Any]
    kept: Kept | None = None


def read_facts(workdir: Path) -> Facts:
    """Reads a workdir.

    Raises:
      UserError: it holds no finished run, or a damaged file.
    """
    for name in ("config.json", "results.json"):
        if not (workdir / name).is_file():
            raise UserError(
                f"--workdir={workdir} has no {name}: expected the folder of a run that has come to"
                " its end. `jaxtune train` with the same config and workdir goes on."
            )
    if not (workdir / "model").is_dir():
        raise UserError(f"--workdir={workdir} has no model/: expected the folder of a whole run.")
    remedy = "Expected the workdir of a run, as the run left it."
    results = read_json_object(workdir / "results.json", remedy)
    if not isinstance(results.get("scores"), dict) or "task" not in results:
        raise UserError(f"{workdir / 'results.json'} has no scores. {remedy}")
    return Facts(
        workdir,
        kept_settings(workdir),
        results,
        _metrics(workdir / "metrics.jsonl"),
        read_card(workdir / "model"),
    )


def _metrics(file: Path) -> list[dict[str, Any]]:
    """The rows that can be read; a line that a kill cut off is left out."""
    rows = []
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
    return rows
