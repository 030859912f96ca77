"""A model folder to a hub: its own files and no others, private unless asked otherwise."""

import glob
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object

_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_CONFIGS = ("config.json", "adapter_config.json", "jaxtune.json")


def push(folder: Path, name: str, *, private: bool, say: Callable[[str], Any]) -> str:
    """Uploads the regular files that stand in the folder itself.

    Args:
      folder: with a config.json or an adapter_config.json, and weights.
      name: USER/NAME.
      private: of a repository that is made; one that is there stays as it is.
      say: takes what a person should know.

    Returns:
      Where the repository is.

    Raises:
      UserError: no model folder, no token, or a hub that refuses.
    """
    names = _files(folder, say)
    if not _ID.fullmatch(name):
        raise UserError(f"--to={name}: expected USER/NAME, of letters, digits, '-', '_' and '.'.")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    token = huggingface_hub.get_token()
    if token is None:
        raise UserError(
            "the hub is asked by nobody it knows: there is no token. `hf auth login` keeps one, or"
            " set HF_TOKEN to one that may write."
        )
    api = huggingface_hub.HfApi(token=token)
    try:
        url = api.create_repo(name, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            repo_type="model",
            folder_path=folder,
            allow_patterns=[glob.escape(file) for file in names],
            commit_message="Model of a jaxtune run",
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--to={name}: the hub refuses, or is not reached: {told}") from None
    return str(url)


def _files(folder: Path, say: Callable[[str], Any]) -> list[str]:
    """The files that are sent; says what is left out, and which paths of this machine they tell."""
    if not folder.is_dir():
        raise UserError(f"--model={folder}: there is no such folder.")
    if (folder / "model").is_dir() and (folder / "checkpoints").is_dir():
        raise UserError(f"--model={folder} is the workdir of a run: name {folder / 'model'}.")
    if not any((folder / name).is_file() for name in _CONFIGS[:2]):
        raise UserError(f"--model={folder} has no config.json: expected a model folder.")
    entries = sorted(folder.iterdir())
    sent = [p for p in entries if p.is_file() and not p.is_symlink() and p.name[0] != "."]
    if not any(path.suffix == ".safetensors" for path in sent):
        raise UserError(f"--model={folder} has no .safetensors file: expected a model's weights.")
    left = [path.name for path in entries if path not in sent]
    if left:
        say(f"not sent, as they are no files of the folder itself: {', '.join(left)}")
    for name in _CONFIGS:
        if (folder / name) in sent:
            fields = read_json_object(folder / name).items()
            paths = [
                key for key, value in fields if isinstance(value, str) and os.path.isabs(value)
            ]
            if paths:
                say(f"{name} tells a path of this machine, in {', '.join(paths)}")
    return [path.name for path in sent]
