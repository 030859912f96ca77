"""Where a model comes from: its folder, and what the `config.json` there says."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object
from jaxtune.models import registry
from jaxtune.models.family import Family


class Source(NamedTuple):
    """A model's folder and config.

    Attributes:
      path: where the files are.
      family: names and conversions of the family.
      config: the family's frozen config.
      hf_config: the parsed `config.json`.
    """

    path: Path
    family: Family
    config: Any
    hf_config: dict[str, Any]


def read_source(path: str | Path, revision: str | None = None) -> Source:
    """Reads what a model is, and none of its weights.

    Args:
      path: a folder in the transformers layout, or a hub id (the only case that uses a network).
      revision: branch, tag or commit on the hub.

    Raises:
      UserError: no such folder or file, another architecture, or a variant of the family that is
        computed differently.
    """
    folder = find_folder(path, revision)
    source = folder / "config.json"
    if not source.exists() and (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} has an adapter_config.json and no config.json: it holds what was trained"
            " on a base model, not the model. jaxtune.predict and --mode=eval open it; to train"
            " further, set config.model.path to a merged model/ folder, or to the base model."
        )
    hf_config = read_json(source)
    family = registry.find_family(hf_config, str(source))
    try:
        head_names(hf_config)
    except (ValueError, TypeError) as error:
        raise UserError(
            f'{source}: expected id2label such as {{"0": NAME, "1": NAME}}, or num_labels as a'
            f" whole number: {error}."
        ) from None
    return Source(folder, family, family.config_from_hf(hf_config, str(source)), hf_config)


def find_folder(path: str | Path, revision: str | None = None) -> Path:
    """The local folder of a path, or of a hub id after its files were fetched."""
    text = str(path)
    folder = Path(os.path.expanduser(text))  # Path.expanduser raises for an unknown ~name
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"model path {text} is a file, expected a folder with config.json.")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", text):
        raise UserError(f"model path {text} does not exist, and is not a hub id (owner/name).")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        fetched = Path(snapshot_download(text, revision=revision, allow_patterns=patterns))
        if not list(fetched.glob("*.safetensors")):
            patterns = ["flax_model.msgpack"]
            snapshot_download(text, revision=revision, allow_patterns=patterns)
    except Exception as error:  # the hub client's errors share no base class
        raise UserError(
            f"model path {text} is no local folder, and as a hub id it could not be fetched:"
            f" {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}."
            " Check the name and the network, or set config.model.path to a local folder."
        ) from None
    return fetched


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      UserError: no such file, or not a JSON object.
    """
    if not file.exists():
        raise UserError(f"{file.parent} is no model folder: it has no {file.name}.")
    return read_json_object(file)


def head_names(hf_config: dict[str, Any]) -> tuple[str, ...]:
    """Class names in the order of the outputs; LABEL_i where the config gives none."""
    id2label = hf_config.get("id2label")
    if id2label:
        return tuple(str(id2label[k]) for k in sorted(id2label, key=int))
    return tuple(f"LABEL_{i}" for i in range(hf_config.get("num_labels", 2)))


def is_regression(hf_config: dict[str, Any]) -> bool:
    """Whether the saved head predicts a number."""
    problem = hf_config.get("problem_type")
    return problem == "regression" or (problem is None and len(head_names(hf_config)) == 1)
