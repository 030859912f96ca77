"""A saved model ready to predict, from a folder in the transformers layout or of an adapter."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtune.core.errors import UserError
from jaxtune.export import adapter_folder, peft
from jaxtune.export.model_folder import read_card
from jaxtune.export.sentence_folder import source_with_head
from jaxtune.models.pooling import EMBEDDING
from jaxtune.models.pretrained import Pretrained
from jaxtune.models.sentence_files import (
    SentenceFiles,
    is_cross_encoder,
    read_sentence_files,
)
from jaxtune.models.source import find_folder, head_names, is_regression
from jaxtune.run.own_heads import head_of, told_of_head
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict, to_dict
from jaxtune.tasks.registry import TASKS, task_of
from jaxtune.tasks.reranking import RERANKING
from jaxtune.tasks.task import Task
from jaxtune.training.compiled import Compiled
from jaxtune.training.eval_step import make_eval_step


class SavedModel(NamedTuple):
    """What prediction needs.

    Attributes:
      pretrained: the model and all its parameters.
      processor: tokenizer or image processor, from the same folder.
      task: read from the folder's config.json.
      card: the folder's jaxtune.json; empty where another tool wrote it.
      data: how inputs are read: what the card says, then what was asked for.
      step: (parameters, batch) -> (metrics of a labelled batch, outputs).
    """

    pretrained: Pretrained
    processor: Any
    task: Task
    card: dict[str, Any]
    data: DataSettings
    step: Compiled


def saved_task(folder: str) -> tuple[Path, Task, dict[str, Any]]:
    """What is known of a saved model before any weight is read.

    Returns:
      (its folder, its task, its jaxtune.json).

    Raises:
      UserError: no such folder, or one of another kind.
    """
    path = find_folder(folder)
    card = read_card(path)
    if card.get("task") in TASKS:
        return path, TASKS[card["task"]], card
    if (path / peft.CONFIG).exists():
        head = adapter_folder.find_head_name(path, card)
        return path, task_of(head, card.get("problem_type"), False), card
    source, head = source_with_head(path, card)
    return path, _task_of(path, head, source.hf_config, card), card


def open_saved(
    folder: str | Path,
    compute_dtype: str = "float32",
    data: DataSettings | None = None,
    *,
    needs_head: bool = True,
    head: str | None = None,
    **fields: Any,
) -> SavedModel:
    """Loads a fine-tuned model.

    Args:
      folder: in the transformers layout, with a head and a tokenizer; or with what was trained and
        the name of the base model, as `adapter_folder.open_model` reads it.
      compute_dtype: of the products.
      data: how inputs are read; None takes what the model was trained with.
      needs_head: refuses a model whose files have no head; else it is drawn, and of no use.
      head: `MODULE:FUNCTION` of the head, where it is a person's own.
      **fields: of `config.data`, as typed, over those; None is not set. Without a `max_length`
        anywhere, it is the model's limit.

    Raises:
      UserError: no such folder, no head, or files that do not belong together.
    """
    own = None if head is None else head_of(head)
    with told_of_head(head):
        pretrained, processor_folder = adapter_folder.open_model(
            folder, jnp.dtype(compute_dtype), needs_head, own
        )
    config, design = pretrained.config, pretrained.design
    card = read_card(pretrained.folder)
    task = _task_of(pretrained.folder, design.head_name, design.source.hf_config, card)
    processor = task.data.inputs.load(processor_folder, config)
    given = {name: value for name, value in fields.items() if value is not None}
    if data is None:
        card_data = card or (_sentence_card(pretrained.folder) if task.head == EMBEDDING else {})
        data = _data_settings(card_data)
        if "max_length" not in card | given and hasattr(config, "max_length"):
            most = (config.max_length, processor.model_max_length, card_data.get("max_length"))
            given["max_length"] = min(length for length in most if length is not None)
    data = from_dict(DataSettings, to_dict(data) | given)
    task.data.inputs.check_settings(data, config, pretrained.folder)
    apply_fn = task.loss.read(pretrained.apply_fn)
    eval_step = make_eval_step(apply_fn, task.loss.metrics, task.output.fetch)
    no_holes = jax.tree.map(lambda _: None, pretrained.params)

    def step(params: Any, batch: Any) -> Any:
        if "labels" in batch:
            return eval_step(params, no_holes, batch)
        outputs = apply_fn(params, batch, key=None, train=False)
        return {}, task.output.fetch(outputs, batch)

    return SavedModel(pretrained, processor, task, card, data, Compiled(step))


def _task_of(
    folder: str | Path, head: str, hf_config: dict[str, Any], card: dict[str, Any]
) -> Task:
    task = card.get("task")
    scores_pairs = task == RERANKING.name if task else is_cross_encoder(Path(folder), hf_config)
    if scores_pairs and head == RERANKING.head and len(head_names(hf_config)) == 1:
        return RERANKING  # which no problem_type tells from a regression
    try:
        return task_of(head, hf_config.get("problem_type"), is_regression(hf_config))
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def _sentence_card(folder: Path) -> dict[str, Any]:
    """What a folder of sentence-transformers says, as a jaxtune.json would."""
    found = read_sentence_files(folder) or SentenceFiles()
    own = {name: text or None for name, text in found.known_prompts().items()}
    return own | {"max_length": found.max_length}


def _of_unset(default: Any) -> tuple[type, ...]:
    """The type of a field of a card that may be unset."""
    return (str,) if default is None else ()


def _data_settings(card: dict[str, Any]) -> DataSettings:
    """The card's fields that are settings of the data."""
    known = to_dict(DataSettings())
    del known["augmentation"]
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in card.items()
        if name in known and type(value) in (list, bool, type(known[name]), *_of_unset(known[name]))
    }
    return from_dict(DataSettings, fields)
