"""Writing a model folder that transformers loads unchanged."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtune import paths
from jaxtune.atomic import replace_folder
from jaxtune.models import convert
from jaxtune.models.pretrained import Pretrained, read_json
from jaxtune.tasks.task import Task
from jaxtune.types import Params

_CARD = "jaxtune.json"


def export_model(
    folder: Path,
    pretrained: Pretrained,
    params: Params,
    tokenizer: Any,
    task: Task,
    card: dict[str, Any],
) -> None:
    """Writes `model.safetensors`, `config.json`, the tokenizer and `jaxtune.json`.

    The folder appears whole or not at all. The same parameters give the same bytes.

    Args:
      folder: made anew.
      pretrained: family, config and class names.
      params: all parameters, trained and frozen, float32.
      tokenizer: saved with `model_max_length` as it is.
      task: names the problem type.
      card: how to feed the model: `text_columns`, `max_length` and the like, for jaxtune.predict.
    """
    from safetensors.numpy import save_file

    flat = paths.flatten(params)
    tensors = {
        convert.torch_name(leaf): convert.to_torch(leaf, np.asarray(jax.device_get(value)))
        for leaf, value in flat.items()
    }

    def fill(fresh: Path) -> None:
        save_file(dict(sorted(tensors.items())), fresh / "model.safetensors", {"format": "pt"})
        text = json.dumps(_config(pretrained, task), indent=2, ensure_ascii=False) + "\n"
        (fresh / "config.json").write_text(text, encoding="utf-8")
        shutil.copymode(fresh / "config.json", fresh / "model.safetensors")  # was 0600
        tokenizer.save_pretrained(fresh)
        text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        (fresh / _CARD).write_text(text, encoding="utf-8")

    replace_folder(folder, fill)


def read_card(folder: Path) -> dict[str, Any]:
    """The folder's `jaxtune.json`; empty where another tool wrote the folder.

    Raises:
      UserError: it is damaged.
    """
    file = folder / _CARD
    return read_json(file) if file.exists() else {}


def _config(pretrained: Pretrained, task: Task) -> dict[str, Any]:
    """The base model's config.json with the head's classes in it."""
    config = dict(pretrained.hf_config)
    for stale in ("_name_or_path", "torch_dtype", "num_labels"):
        config.pop(stale, None)
    names = pretrained.class_names or ("LABEL_0",)
    return config | {
        "architectures": [pretrained.family.architecture],
        "dtype": "float32",
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": task.problem_type,
    }
