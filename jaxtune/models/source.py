"""Where a model comes from: its folder, and what the `config.json` there says."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object
from jaxtune.io.model_files import check_folder
from jaxtune.models import registry
from jaxtune.models.family import Family

MAX_CLASSES = 1_000_000
"""Of a `config.json` that counts them and does not name them."""

_OF_RUNS = ("model", "adapter", "checkpoints")  # folders in the workdir of a run


class Source(NamedTuple):
    """A model's folder and config.

    Attributes:
      path: where the files are.
      family: names and conversions of the family.
      config: the family's frozen config.
      hf_config: the parsed `config.json`.
      layers: of the folder's layers those that the model has; None for all.
    """

    path: Path
    family: Family
    config: Any
    hf_config: dict[str, Any]
    layers: tuple[int, ...] | None = None


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
    classes = hf_config.get("architectures")
    if not isinstance(classes, list | None):
        raise UserError(
            f"{source}: architectures is {repr(classes)[:80]}, expected a list of names."
        )
    try:
        head_names(hf_config)
    except (ValueError, TypeError) as error:
        raise UserError(
            f'{source}: expected id2label such as {{"0": NAME, "1": NAME}}, or num_labels as a'
            f" whole number up to {MAX_CLASSES}: {str(error)[:200]}."
        ) from None
    if hf_config.get("quantization_config") is not None:
        raise UserError(
            f"{source} has a quantization_config: its weights mean nothing without their scales,"
            " which jaxtune does not read. Choose the model as it was before it was quantised."
        )
    return Source(folder, family, family.config_from_hf(hf_config, str(source)), hf_config)


def find_folder(path: str | Path, revision: str | None = None) -> Path:
    """The local folder of a path, or of a hub id after its files were fetched.

    Raises:
      UserError: no such folder, one of a run, a file that is not regular, a config that names code,
        or a hub id that cannot be fetched.
    """
    text, folder = str(path), _named_folder(path)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        fetched = Path(snapshot_download(text, revision=revision, allow_patterns=patterns))
        if not list(fetched.glob("*.safetensors")):
            patterns = ["flax_model.msgpack"]
            snapshot_download(text, revision=revision, allow_patterns=patterns)
    except Exception as error:  # the hub client's errors share no base class
        lines = str(error).splitlines() or [""]
        raise UserError(
            f"model path {text} is no local folder, and as a hub id it could not be fetched:"
            f" {type(error).__name__}: {lines[0][:200]}."
            " Check the name and the network, or set config.model.path to a local folder."
        ) from None
    check_folder(fetched)
    return fetched


def find_local(path: str | Path, revision: str | None = None) -> Path | None:
    """As `find_folder`, but for a hub id whose files were not fetched yet: None, and no network.

    Raises:
      UserError: as `find_folder`.
    """
    folder = _named_folder(path)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    try:
        kept = Path(snapshot_download(str(path), revision=revision, local_files_only=True))
    except Exception:  # the hub client's errors share no base class
        return None
    check_folder(kept)
    return kept if (kept / "config.json").exists() else None


def _named_folder(path: str | Path) -> Path | None:
    """The folder that a path names; None for a hub id."""
    text = str(path)
    folder = Path(os.path.expanduser(text))  # Path.expanduser raises for an unknown ~name
    if os.path.isdir(folder):  # False for a name that no folder can have, too
        check_folder(folder)
        _check_no_run(folder)
        return folder
    if os.path.exists(folder):
        raise UserError(f"model path {text} is a file, expected a folder with config.json.")
    if _looks_local(text):
        raise UserError(
            f"model path {text} does not exist, and is no hub id (owner/name). Name the folder of a"
            " model; what is on a hub under such a name is to be fetched first."
        )
    return None


def _looks_local(text: str) -> bool:
    """Whether a path that does not exist can only be meant as one: it is never asked of a hub."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", text):
        return True
    first, *rest = text.split("/")
    # Folders as jaxtune's own commands and pages name them.
    return bool(rest) and (first == "runs" or rest[0] in _OF_RUNS or os.path.exists(first))


def _check_no_run(folder: Path) -> None:
    """Refuses the folder of a run, in which the folder of the model lies."""
    if not any((folder / name).is_dir() for name in _OF_RUNS):
        return
    if (folder / "adapter_config.json").exists() or not (folder / "config.json").exists():
        return
    fields = read_json_object(folder / "config.json")
    if "model_type" in fields or not isinstance(fields.get("model"), dict):
        return
    remedy = "it has no model/ yet: train to its end first"
    if (folder / "model").is_dir():
        remedy = f"did you mean {folder / 'model'}?"
    raise UserError(f"{folder} is the folder of a run, not of a model: {remedy}")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      UserError: no such file, or not a JSON object.
    """
    if not file.exists():
        raise UserError(f"{file.parent} is no model folder: it has no {file.name}.")
    return read_json_object(file)


def head_names(hf_config: dict[str, Any]) -> tuple[str, ...]:
    """Class names in the order of the outputs; LABEL_i where the config gives none.

    Raises:
      ValueError: `id2label` or `num_labels` is not what transformers writes.
      TypeError: the same.
    """
    id2label = hf_config.get("id2label")
    if id2label:
        if not isinstance(id2label, dict):
            raise TypeError(f"id2label is a {type(id2label).__name__}")
        return tuple(str(id2label[k]) for k in sorted(id2label, key=int))
    count = hf_config.get("num_labels")
    count = 2 if count is None else count
    if type(count) is not int or not 0 < count <= MAX_CLASSES:
        raise ValueError(f"num_labels is {str(count)[:80]}")
    return tuple(f"LABEL_{i}" for i in range(count))


def is_regression(hf_config: dict[str, Any]) -> bool:
    """Whether the saved head predicts a number."""
    problem = hf_config.get("problem_type")
    return problem == "regression" or (problem is None and len(head_names(hf_config)) == 1)
