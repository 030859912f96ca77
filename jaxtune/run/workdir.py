"""The folder of a run: one config for life, so that going on never mixes two runs."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.io.atomic import write_atomic
from jaxtune.io.json_files import read_json_object
from jaxtune.settings import Settings
from jaxtune.settings.dicts import differences, to_json

_REMEDY = "Use another --workdir"

_RESOLVED = (("model", "sha256"), ("data", "sha256"), ("data", "allow_no_answer"))
"""Settings that a run finds out where they are None."""

_FREE = ("parallel",)
"""Sections that change no number of a run, which may go on with others."""


def check_workdir(workdir: Path, settings: Settings) -> None:
    """Refuses a folder that holds a run with another config.

    A digest, or another thing that a run finds out, is taken to be the old one where it is not set
    yet, so this can be asked before anything is loaded.

    Raises:
      UserError: names the fields that differ, or what is wrong with the folder.
    """
    file = workdir / "config.json"
    if not file.exists():
        if (workdir / "checkpoints").exists():
            raise UserError(f"{workdir} holds checkpoints but no config.json. {_REMEDY}.")
        return
    old, new = read_json_object(file, f"{_REMEDY}."), json.loads(to_json(settings))
    for section, name in _RESOLVED:
        if new[section][name] is None and isinstance(old.get(section), dict):
            new[section][name] = old[section].get(name)
    for section in _FREE:
        new[section] = old[section] = None
    changed = differences(old, new)
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config: {'; '.join(changed[:5])}. {_REMEDY}, or"
            " the same config to go on."
        )


def claim_workdir(workdir: Path, settings: Settings) -> None:
    """Writes the resolved config.json; if there is one, the two must agree.

    Raises:
      UserError: as `check_workdir`, or the folder cannot be written to.
    """
    check_workdir(workdir, settings)
    file = workdir / "config.json"
    if file.exists():
        return
    with explain_unwritable(workdir):
        write_atomic(file, to_json(settings))


@contextlib.contextmanager
def explain_unwritable(workdir: Path) -> Iterator[None]:
    """Turns an error of the file system into one that a person can act on.

    Raises:
      UserError: the folder cannot be made or written to.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written to: {error.strerror}. Expected a folder, which"
            f" is made if absent. {_REMEDY}."
        ) from None
