"""The folder of a run: one config for life, so that going on never mixes two runs."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.io import lock
from jaxtune.io.atomic import remove_leftovers, write_atomic
from jaxtune.io.disk import explained
from jaxtune.io.json_files import read_json_object
from jaxtune.settings import Settings
from jaxtune.settings.dicts import differences, to_json

_REMEDY = "Use another --workdir"

_RESOLVED = (
    *(("model", "sha256"), ("model", "config_sha256"), ("model", "tokenizer_sha256")),
    *(("data", "sha256"), ("data", "allow_no_answer"), ("distillation", "teacher_sha256")),
    *(("model", "pooling"), ("model", "normalize")),
    *(("data", "query_prompt"), ("data", "document_prompt")),
)
"""Settings that a run finds out where they are None."""

_DIGESTED = {
    "model.sha256": "weights",
    "model.config_sha256": "config.json of the base model",
    "model.tokenizer_sha256": "tokenizer or image processor of the base model",
    "data.sha256": "data",
    "distillation.teacher_sha256": "weights of the teacher",
}
"""What has changed where a digest has."""

_FREE = (
    *("parallel.", "profile.", "activation_cache.max_memory_bytes"),
    *("model.path", "model.revision"),  # their files have digests
    *("train.log_every_steps", "train.eval_every_steps", "train.checkpoint_every_steps"),
    *("train.patience", "train.on_nonfinite", "train.max_seconds", "train.trackers"),
    *("train.num_epochs", "train.num_steps"),  # `check_length` has the last word
)
"""Settings that change no number of the steps taken, and with which a run may go on."""

_WRITTEN = (
    *("config.json", "metrics.jsonl", "trackers.json", "results.json", "model", "adapter"),
    *("predictions", "figures", "report.html"),
)


@contextlib.contextmanager
def hold_workdir(workdir: Path) -> Iterator[None]:
    """Keeps a workdir for this run alone, and clears what killed ones left half written.

    Raises:
      UserError: another run has it, or it cannot be made or written to.
    """
    with explain_unwritable(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as stack:
            with explain_unwritable(workdir):
                stack.enter_context(lock.held(workdir / ".lock", f"--workdir={workdir}"))
                remove_leftovers(workdir, *_WRITTEN)
            yield
    finally:
        with contextlib.suppress(OSError):
            workdir.rmdir()  # if nothing came to be in it


def check_workdir(workdir: Path, settings: Settings) -> list[str]:
    """Refuses a folder that holds a run with another config.

    A digest, or another thing that a run finds out, is taken to be the old one where it is not set
    yet, so this can be asked before anything is loaded.

    Returns:
      The fields that differ where a run may go on with other values, as `a.b was 1, is 2`.

    Raises:
      UserError: names the fields that differ, or what is wrong with the folder.
    """
    file = workdir / "config.json"
    if not file.exists():
        if (workdir / "checkpoints").exists():
            raise UserError(f"{workdir} holds checkpoints but no config.json. {_REMEDY}.")
        return []
    old, new = kept_settings(workdir), json.loads(to_json(settings))
    for section, name in _RESOLVED:
        if new[section][name] is None and isinstance(old.get(section), dict):
            new[section][name] = old[section].get(name)
    found = differences(old, new)
    changed = [_told(text) for text in found if not text.startswith(_FREE)]
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config: {'; '.join(changed[:5])}. {_REMEDY}, or"
            " the same config to go on."
        )
    return found


def claim_workdir(workdir: Path, settings: Settings) -> list[str]:
    """Writes the resolved config.json; if there is one, the two must agree, or differ freely.

    Returns:
      As `check_workdir`.

    Raises:
      UserError: as `check_workdir`, or the folder cannot be written to.
    """
    changed = check_workdir(workdir, settings)
    file = workdir / "config.json"
    if changed or not file.exists():
        with explain_unwritable(workdir):
            write_atomic(file, to_json(settings))
    return changed


def kept_settings(workdir: Path) -> dict[str, Any]:
    """The settings that a workdir's run had until now; empty where there is none.

    Those that the version of that run did not have yet are the defaults.
    """
    file = workdir / "config.json"
    if not file.exists():
        return {}
    kept, defaults = read_json_object(file, f"{_REMEDY}."), json.loads(to_json(Settings()))
    for name, section in defaults.items():
        if isinstance(section, dict) and isinstance(kept.get(name), dict):
            kept[name] = section | kept[name]
    return kept


def explain_unwritable(workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Turns an error of the file system into one that a person can act on, as `explained`."""
    remedy = f"Expected a folder, which is made if absent. {_REMEDY}"
    return explained(f"--workdir={workdir}", remedy)


def _told(text: str) -> str:
    """A difference in words where it is that of a digest."""
    what = _DIGESTED.get(text.partition(" ")[0])
    return text if what is None else f"the {what} has changed ({text})"
