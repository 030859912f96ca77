"""Writing a model folder that transformers loads unchanged."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.export.sentence_folder import CARD, files_beside, tensors_beside
from jaxtune.io.atomic import replace_folder
from jaxtune.io.json_files import read_json_object
from jaxtune.models import convert
from jaxtune.models.pooling import POOLING_HEADS
from jaxtune.models.pretrained import Pretrained
from jaxtune.models.registry import CLASS_HEADS
from jaxtune.models.sentence_files import CROSS_ENCODER
from jaxtune.tasks.reranking import RERANKING
from jaxtune.tasks.task import Task

_NAMES = {
    **{list: "a list of texts", str: "a text", int: "a whole number", float: "a number"},
    **{bool: "true or false", dict: "an object"},
}
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("text_columns", "label_columns", "no_label"), (list,)),
    **dict.fromkeys(("task", "image_column", "label_column", "base_model", "base_sha256"), (str,)),
    **dict.fromkeys(("head", "group_column"), (str,)),
    **dict.fromkeys(("max_length", "doc_stride", "max_answer_length", "n_best"), (int,)),
    **dict.fromkeys(("mask_probability", "no_answer_threshold", "temperature"), (float, int)),
    "allow_no_answer": (bool,),
    **dict.fromkeys(("id2label", "label2id"), (dict,)),
    "problem_type": (str,),
    **dict.fromkeys(("pooling", "query_prompt", "document_prompt"), (str,)),
    "normalize": (bool,),
}
"""The types of the fields of `jaxtune.json`."""


def export_model(
    folder: Path,
    pretrained: Pretrained,
    params: Params,
    processor: Any,
    task: Task,
    card: dict[str, Any],
) -> None:
    """Writes `model.safetensors`, `config.json`, the tokenizer or image processor, `jaxtune.json`.

    The folder appears whole or not at all. The same parameters give the same bytes.

    Args:
      folder: made anew.
      pretrained: family, config and class names.
      params: all parameters, trained and frozen; written as float32 whatever they are.
      processor: a tokenizer, saved with `model_max_length` as it is, or an image processor.
      task: names the problem type.
      card: how to feed the model: `text_columns`, `max_length` and the like, for jaxtune.predict.
    """
    tensors = {
        _file_name(leaf, pretrained): convert.to_file(leaf, np.asarray(value, np.float32))
        for leaf, value in paths.flatten(params).items()
    }
    config = _config(pretrained, task)
    pad_token_id = getattr(processor, "pad_token_id", None)
    if config.get("pad_token_id") is None and pad_token_id is not None:
        config["pad_token_id"] = pad_token_id  # GPT-2's, without which transformers takes no batch
    own, more = tensors_beside(pretrained, tensors)
    files = ("model.safetensors", own | pretrained.buffers), ("config.json", config)
    write_folder(folder, *files, processor, card, files_beside(pretrained, card), more)


def _file_name(leaf: str, pretrained: Pretrained) -> str:
    """Of a parameter in the files: those of a backbone that no head stands on have no prefix."""
    if pretrained.design.head_name in POOLING_HEADS:
        leaf = leaf.removeprefix(f"{pretrained.design.source.family.prefix}/")
    return convert.torch_name(leaf)


def write_folder(
    folder: Path,
    tensors: tuple[str, dict[str, np.ndarray]],
    config: tuple[str, dict[str, Any]],
    processor: Any,
    card: dict[str, Any],
    beside: Mapping[str, Any] = MappingProxyType({}),
    more: Mapping[str, dict[str, np.ndarray]] = MappingProxyType({}),
) -> None:
    """Writes a safetensors file, a config, a tokenizer and `jaxtune.json`, all or nothing.

    Args:
      folder: made anew.
      tensors: the file's name and its tensors by name.
      config: the file's name and its content.
      processor: a tokenizer or an image processor; None for none.
      card: for jaxtune.predict; {} for none.
      beside: the content of further files of JSON, by their place in the folder.
      more: the tensors of further safetensors files, likewise.
    """
    from safetensors.numpy import save_file

    def fill(fresh: Path) -> None:
        for name, content in (tensors, *more.items()):
            (fresh / name).parent.mkdir(exist_ok=True)
            save_file(dict(sorted(content.items())), fresh / name, {"format": "pt"})
        for name, content in (config, (CARD, card), *beside.items()):
            if content:
                (fresh / name).parent.mkdir(exist_ok=True)
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (fresh / name).write_text(text, encoding="utf-8")
        for name in (tensors[0], *more):
            shutil.copymode(fresh / config[0], fresh / name)  # was 0600
        if processor is not None:
            processor.save_pretrained(fresh)

    replace_folder(folder, fill)


def read_card(folder: Path) -> dict[str, Any]:
    """The folder's `jaxtune.json`; empty where another tool wrote the folder.

    Raises:
      UserError: it is damaged, or a field is of another type than a run writes.
    """
    file = folder / CARD
    card = read_json_object(file) if file.exists() else {}
    for name, kinds in _KINDS.items():
        value = card.get(name)
        good = value is None or type(value) in kinds
        if isinstance(value, list):
            good = good and all(isinstance(item, str) for item in value)
        if not good:
            raise UserError(
                f"{file}: {name} is {repr(value)[:80]}, expected"
                f" {' or '.join(_NAMES[kind] for kind in kinds)}. Write it as the run did."
            )
    temperature = card.get("temperature")
    if temperature is not None and not 1e-12 <= temperature <= 1e12:
        raise UserError(
            f"{file}: temperature is {temperature!r:.80}, expected a number above 0. Write it as"
            " the run did, or leave it out."
        )
    return card


def head_fields(pretrained: Pretrained, task: Task) -> dict[str, Any]:
    """What config.json says about a head: its classes and its problem type.

    A head whose outputs are neither classes nor targets says nothing: two is what transformers
    takes then, and what a head of spans has.
    """
    if task.head not in CLASS_HEADS:
        return {}
    outputs = pretrained.design.outputs
    names = outputs.class_names or tuple(f"LABEL_{i}" for i in range(outputs.size))
    fields = {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    return fields if task.problem_type is None else fields | {"problem_type": task.problem_type}


def _config(pretrained: Pretrained, task: Task) -> dict[str, Any]:
    """The base model's config.json with the head's classes in it."""
    config = dict(pretrained.design.source.hf_config)
    of_head = ("num_labels", "id2label", "label2id", "problem_type", "sentence_transformers")
    for stale in ("_name_or_path", "torch_dtype", *of_head):
        config.pop(stale, None)
    config |= {"architectures": [pretrained.design.head.architecture], "dtype": "float32"}
    of_pairs = {"sentence_transformers": CROSS_ENCODER} if task.name == RERANKING.name else {}
    return config | head_fields(pretrained, task) | of_pairs
