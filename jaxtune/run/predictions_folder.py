"""The workdir's `predictions/`: what the best step gave on held-out rows, in arrays and in JSON."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.io.atomic import replace_folder
from jaxtune.io.json_files import read_json_object
from jaxtune.tasks.outcomes.outcome import Told

FOLDER = "predictions"
_ARRAYS, _ROWS = "outputs.npz", "shown.json"
_FORMAT = 1


class Kept(NamedTuple):
    """Of one split.

    Attributes:
      task: by name.
      split: `test` or `validation`.
      step: after which the outputs were computed.
      unit: what `lengths` counts; empty where all rows are alike.
      names: of tags, by their index in the arrays.
      arrays: those of the task's outcome, and `lengths`.
      rows: the worst rows with their inputs, the worst first.
    """

    task: str
    split: str
    step: int
    unit: str
    names: Sequence[str]
    arrays: Mapping[str, np.ndarray]
    rows: Sequence[Told]


def write(workdir: Path, kept: Kept) -> None:
    """Writes the folder, all or nothing."""
    fields = {"format": _FORMAT} | kept._asdict()
    del fields["arrays"]

    def fill(fresh: Path) -> None:
        np.savez(fresh / _ARRAYS, allow_pickle=False, **kept.arrays)
        text = json.dumps(fields, indent=1, ensure_ascii=True) + "\n"
        (fresh / _ROWS).write_text(text, encoding="ascii")

    replace_folder(workdir / FOLDER, fill)


def read(workdir: Path) -> Kept | None:
    """What `write` wrote; None where there is nothing, or nothing that this version reads.

    Raises:
      UserError: a file is damaged.
    """
    folder = workdir / FOLDER
    if not (folder / _ROWS).exists():
        return None
    fields = read_json_object(folder / _ROWS, f"Remove {folder}, to have it computed again.")
    if fields.pop("format", None) != _FORMAT:
        return None
    try:
        with np.load(folder / _ARRAYS, allow_pickle=False) as found:
            return Kept(**fields, arrays={name: found[name] for name in found.files})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{folder} is damaged: {str(error)[:200]}. Remove it, to have it computed again."
        ) from None
