"""Folders that hold what was trained, and name the base model: written by a run, opened again.

`adapter_config.json` says which base, and what was added to it: `"peft_type": "LORA"` in the files
of the peft package, or `"JAXTUNE"` for the strategies that no model folder can hold. There,
`adapter_model.safetensors` has jaxtune's own names, and transformers and peft refuse the folder
rather than load the base without what was trained.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.data.text.tokenizer_files import check_tokenizer, has_tokenizer
from jaxtune.export import model_folder, peft, sentence_folder
from jaxtune.export.own_adapter import apply_own
from jaxtune.export.sentence_folder import pooled_source, source_with_head
from jaxtune.io.json_files import read_json_object
from jaxtune.models.design import choose_outputs, make_design
from jaxtune.models.family import Head
from jaxtune.models.own_head import MakeHead, with_own_head
from jaxtune.models.pooling import POOLING_HEADS
from jaxtune.models.pretrained import Pretrained, load_weights
from jaxtune.models.registry import CLASS_HEADS, find_head, saved_head
from jaxtune.models.source import Source, find_folder, head_names, is_regression, read_source
from jaxtune.models.weights import Weights
from jaxtune.settings import ModelSettings
from jaxtune.settings.dicts import to_dict
from jaxtune.settings.tuning import TuningSettings
from jaxtune.tasks.registry import TASKS
from jaxtune.tasks.task import Task
from jaxtune.tuning import injection
from jaxtune.tuning.lora import Lora
from jaxtune.tuning.partition import FROZEN, Strategy

OWN = "JAXTUNE"


class Product(NamedTuple):
    """What a run hands over to be written, besides its parameters.

    Attributes:
      strategy: what was trained.
      labels: of the extended tree, in the last stage.
      pretrained: the base model.
      processor: its tokenizer or image processor.
      task: names the head and the problem type.
      base: where the base model is.
      tuning: the strategy's settings, which a folder of what was trained keeps.
      frozen_dtype: that frozen parameters were kept in.
    """

    strategy: Strategy
    labels: Any
    pretrained: Pretrained
    processor: Any
    task: Task
    base: ModelSettings
    tuning: TuningSettings
    frozen_dtype: str


def write(
    workdir: Path,
    product: Product,
    params: Params,
    card: dict[str, Any],
    say: Callable[[str], Any],
) -> None:
    """Writes `model/`, and for LoRA `adapter/` in peft's files beside it.

    Args:
      workdir: of the run.
      product: what was trained, and on what.
      params: all parameters after training, the added ones too.
      card: the content of `jaxtune.json`.
      say: takes a line where there is no `adapter/`, as peft's files cannot hold what was trained.
    """
    strategy, pretrained, task = product.strategy, product.pretrained, product.task
    card = card | sentence_folder.pooling_fields(pretrained)
    full_card = card | model_folder.head_fields(pretrained, task)
    if not injection.is_mergeable(strategy):
        _write_own(workdir / "model", product, params, full_card)
        return
    merged = injection.merge(strategy, params)
    model_folder.export_model(workdir / "model", pretrained, merged, product.processor, task, card)
    if type(strategy) is not Lora:
        return
    if task.head in POOLING_HEADS:
        say("no adapter/ in peft's files: of an embedding model there is model/ alone, merged")
        return
    if "head" in card:
        say(f"no adapter/ in peft's files: the head is one of your own, {card['head']}")
        return
    try:
        peft.save_lora(
            workdir / "adapter",
            strategy,
            params,
            product.labels,
            peft.Base(_base_name(product.base), task.head, product.base.revision),
            tokenizer=product.processor,
            card=full_card,
        )
    except UserError as reason:
        say(f"no adapter/ in peft's files: {reason}")


def open_model(
    path: str | Path,
    compute_dtype: Any = jnp.float32,
    needs_head: bool = True,
    own_head: MakeHead | None = None,
) -> tuple[Pretrained, Path]:
    """Loads a model that can predict, from any folder that jaxtune or peft writes.

    Args:
      path: a folder in the transformers layout, an adapter folder, or a hub id of either.
      compute_dtype: of the products.
      needs_head: refuses a folder in the transformers layout without a head; else it is drawn.
      own_head: makes the head of a folder whose `jaxtune.json` names one of a person's own.

    Returns:
      (the model, the folder of its tokenizer). Of an adapter folder, LoRA is merged; other
      strategies give the extended tree and the model on it.

    Raises:
      UserError: as `load_pretrained`; no base model, another one than at training, or an adapter
        that does not fit it.
    """
    folder = find_folder(path)
    card = model_folder.read_card(folder)
    _check_own_head(folder, card.get("head"), own_head)
    if not (folder / peft.CONFIG).exists():
        source, head = source_with_head(folder, card)
        if own_head is not None:
            head = TASKS[card["task"]].head if card.get("task") in TASKS else head
            source = source._replace(family=with_own_head(source.family, head, own_head))
        outputs = choose_outputs(head, source.hf_config)
        design = make_design(source, head, outputs, compute_dtype)
        _check_readable(folder, head)
        # Without a key a head that is not in the files is refused.
        return load_weights(design, key=None if needs_head else jax.random.key(0)), folder
    return _open_adapter(folder, compute_dtype, own_head)


def _check_own_head(folder: Path, name: str | None, given: MakeHead | None) -> None:
    """Refuses to run code that only a file names, and code for a head that is none's own."""
    if name is not None and given is None:
        raise UserError(
            f"{folder}/jaxtune.json names the code of its head, {name!r}: if you trust it, add"
            f" --head={name}, or head={name!r} in Python; of a run, --config.model.head={name}."
        )
    if name is None and given is not None:
        raise UserError(f"{folder} has no head of a person's own: expected no --head.")


def _open_adapter(
    folder: Path, compute_dtype: Any, own_head: MakeHead | None
) -> tuple[Pretrained, Path]:
    """The base model with what was trained on it, and the folder of the tokenizer."""
    config, card, weights = _read(folder)
    source = _find_base(folder, config)
    head = find_head_name(folder, card)
    if head in POOLING_HEADS:
        source = pooled_source(source, folder, card) or source
    if own_head is not None:
        source = source._replace(family=with_own_head(source.family, head, own_head))
    tokenizer_folder = folder if has_tokenizer(folder) else source.path
    part = find_head(source.family, head)
    _check_readable(tokenizer_folder, head)
    hf_config = source.hf_config | {"architectures": [part.architecture]}
    if head in CLASS_HEADS:
        hf_config |= _head_fields(folder, card, weights, part, hf_config)
    names = head_names(hf_config) if head in CLASS_HEADS else ()
    count = len(names) if head == "sequence" and is_regression(hf_config) else None
    names = () if count else names
    outputs = choose_outputs(head, source.hf_config, names or None, count)
    design = make_design(source, head, outputs, compute_dtype)
    base = load_weights(design, key=jax.random.key(0))  # what it draws is replaced, or refused
    _check_digest(folder, base, config.get("base_sha256", card.get("base_sha256")))
    if config.get("frozen_dtype") == "bfloat16":  # as in training
        base = base._replace(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), base.params))
    if config["peft_type"] == OWN:
        params, apply_fn = apply_own(folder, config, base, weights)
    else:
        lora, extended = peft.load_lora(folder, base.params)
        params, apply_fn = lora.merge(extended), base.apply_fn
    _check_new(folder, base, params)
    design = design._replace(
        source=source._replace(path=folder, hf_config=hf_config),
        outputs=outputs._replace(class_names=names),
    )
    report = base.report._replace(new={})  # as _check_new has found
    found = base._replace(params=params, apply_fn=apply_fn, design=design, report=report)
    return found, tokenizer_folder


def _check_readable(folder: Path, head: str) -> None:
    """Refuses a model of texts whose tokenizer nothing here reads, before any weight is read."""
    if head != "image" and has_tokenizer(folder):
        check_tokenizer(folder)


def check_head(pretrained: Pretrained) -> None:
    """Refuses a model whose head was not in its files.

    Raises:
      UserError: there is no head, or not a whole one.
    """
    new = pretrained.report.new
    if new:
        raise UserError(
            f"{pretrained.folder} has no usable head: {'; '.join(new.values())}. Fine-tune it"
            " first; what it gives now follows from chance."
        )


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], Weights]:
    """An adapter folder's config, its card and its tensors."""
    config = read_json_object(folder / peft.CONFIG)
    kind = config.get("peft_type")
    if kind not in ("LORA", OWN):
        raise UserError(
            f"{folder / peft.CONFIG}: peft_type is {repr(kind)[:80]}: expected 'LORA' or"
            f" {OWN!r}, the kinds that jaxtune reads."
        )
    return config, model_folder.read_card(folder), peft.open_adapter(folder)


def find_head_name(folder: Path, card: dict[str, Any]) -> str:
    """The head that an adapter was trained with.

    That is what the card says; else peft's task type; else the class of the model in peft's
    `auto_mapping`; else the head of the base model.

    Raises:
      UserError: another kind of head, or no base model where that is asked.
    """
    if card.get("task") in TASKS:
        return TASKS[card["task"]].head
    config = read_json_object(folder / peft.CONFIG)
    kind, mapping = config.get("task_type"), config.get("auto_mapping") or {}
    if kind:
        if not isinstance(kind, str) or kind not in peft.HEAD_OF_TASK_TYPE:
            raise UserError(
                f"{folder / peft.CONFIG}: task_type is {repr(kind)[:80]}: expected one of"
                f" {', '.join(peft.HEAD_OF_TASK_TYPE)}, the kinds that jaxtune reads."
            )
        return peft.HEAD_OF_TASK_TYPE[kind]
    base = _find_base(folder, config)
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    own = saved_head(base.family, {"architectures": [named]})
    return own or saved_head(base.family, base.hf_config) or "sequence"


def _check_digest(folder: Path, base: Pretrained, expected: str | None) -> None:
    if expected not in (None, base.sha256):
        raise UserError(
            f"{folder} was trained on weights with sha256 {expected}, but those in {base.folder}"
            f" have {base.sha256}. Name its own base model: base_model_name_or_path in"
            f" {peft.CONFIG}."
        )


def _write_own(folder: Path, product: Product, params: Params, card: dict[str, Any]) -> None:
    """The trained leaves, and the newly drawn ones even if they were frozen."""
    pretrained, labels = product.pretrained, paths.flatten(product.labels)
    new = tuple(f"{part}/" for part in pretrained.report.new)
    tensors = {
        name: np.asarray(jax.device_get(leaf), np.float32)
        for name, leaf in paths.flatten(params).items()
        if labels[name] != FROZEN or name.startswith(new)
    }
    config = {
        "peft_type": OWN,
        "base_model_name_or_path": _base_name(product.base),
        "revision": product.base.revision,
        "base_sha256": pretrained.sha256,
        "frozen_dtype": product.frozen_dtype,
        "tuning": to_dict(product.tuning),
    }
    files = (peft.WEIGHTS, tensors), (peft.CONFIG, config)
    model_folder.write_folder(folder, *files, product.processor, card)


def _base_name(base: ModelSettings) -> str:
    """The base's hub id, or its folder, which a run from anywhere finds."""
    path = os.path.expanduser(base.path)
    return os.path.abspath(path) if os.path.isdir(path) else base.path


def _find_base(folder: Path, config: dict[str, Any]) -> Source:
    """The base model that an adapter names."""
    name, remedy = config.get("base_model_name_or_path"), "Set base_model_name_or_path there to it."
    source, revision = folder / peft.CONFIG, config.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise UserError(f"{source}: revision is {repr(revision)[:80]}, expected a name or null.")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{source}: base_model_name_or_path is {repr(name)[:80]}, expected the folder or hub"
            f" id of the base model. {remedy}"
        )
    try:
        return read_source(name, revision)
    except UserError as error:
        raise UserError(f"{source} names the base model {name!r}: {error} {remedy}") from None


def _head_fields(
    folder: Path,
    card: dict[str, Any],
    weights: Weights,
    head: Head,
    hf_config: dict[str, Any],
) -> dict[str, Any]:
    """What the adapter says of its head; where it says nothing, the size of its tensor does."""
    if "id2label" in card:
        fields = {"id2label": card["id2label"], "problem_type": card.get("problem_type")}
        try:
            head_names(fields)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f'{folder}/jaxtune.json: expected id2label such as {{"0": NAME}}: {error}.'
            ) from None
        return fields
    ends = (f"{head.modules[-1]}.weight", f"{head.modules[-1]}.out_proj.weight")
    found = (weights.shapes.get(f"{peft.PREFIX}{end.replace('/', '.')}") for end in ends)
    kernel = next((shape for shape in found if shape is not None), None)
    if kernel is None or kernel[0] == len(head_names(hf_config)):
        return {}
    return {"id2label": {str(i): f"LABEL_{i}" for i in range(kernel[0])}, "problem_type": None}


def _check_new(folder: Path, base: Pretrained, params: Params) -> None:
    """Refuses a part that the base lacks and the adapter does not bring."""
    before, after = paths.flatten(base.params), paths.flatten(params)
    for part, reason in base.report.new.items():
        for name in before:
            if name.startswith(f"{part}/") and after[name] is before[name]:
                raise UserError(
                    f"{folder} has no {name!r}, and neither has its base model ({part}: {reason})."
                    " Name the base model that it was trained on."
                )
