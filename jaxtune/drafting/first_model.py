"""Which model a first run takes, and what is known of it without asking a hub."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.inputs import TEXT
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.drafting.recipe import Size
from jaxtune.models.registry import find_head
from jaxtune.models.source import find_local, read_source
from jaxtune.tasks.registry import find_task

_MINILM, _BERT = "sentence-transformers/all-MiniLM-L6-v2", "google-bert/bert-base-uncased"
_SIZES = {
    _MINILM: Size("bert", 384, 6),
    _BERT: Size("bert", 768, 12),
    "google-bert/bert-base-cased": Size("bert", 768, 12),
    "distilbert/distilbert-base-uncased": Size("distilbert", 768, 6),
    "distilbert/distilbert-base-multilingual-cased": Size("distilbert", 768, 6),
    "FacebookAI/xlm-roberta-base": Size("xlm-roberta", 768, 12),
    "openai-community/gpt2": Size("gpt2", 768, 12),
    "microsoft/resnet-18": Size("resnet", 0, 18),
    "google/vit-base-patch16-224-in21k": Size("vit", 768, 12),
}
_COMMON = {
    *("the", "of", "and", "to", "a", "in", "is", "it", "for", "that", "on", "with", "was", "as"),
    *("are", "at", "be", "this", "by", "from", "i", "you", "my", "not", "have", "we", "but", "an"),
}
"""The words that English texts of any kind are full of."""

_ENOUGH = 100  # words
_CAUSAL = ("gpt2",)


class FirstModel(NamedTuple):
    """The model of a first run.

    Attributes:
      path: a folder or a hub id.
      why: it was taken, for a person.
      size: of it; guessed from its name where its files are not here.
      max_length: the most tokens of an example; None where that is not known.
      tokenizer: None where its files are not here, or it reads images.
    """

    path: str
    why: str
    size: Size
    max_length: int | None = 512
    tokenizer: FileTokenizer | None = None


def choose_model(
    path: str | None, task: str, texts: Sequence[str], accelerated: bool
) -> FirstModel:
    """The model that a person named, or one that fits the task, the texts and the machine.

    Args:
      path: a folder or a hub id; None for one that fits.
      task: as `config.task` has it.
      texts: some of those that are read.
      accelerated: whether there is more than a CPU.

    Raises:
      UserError: no such folder, or a model that cannot do the task.
    """
    if path is None:
        chosen = _fitting(task, texts, accelerated)
    else:
        chosen = FirstModel(path, "", _guess_size(path), None if task == _IMAGES else 512)
    folder = find_local(chosen.path)
    if folder is None:
        return chosen
    source = read_source(folder)
    find_head(source.family, find_task(task).head)
    config, limit = source.config, getattr(source.config, "max_length", None)
    widths = (getattr(config, name, None) for name in ("hidden_size", "dim", "n_embd"))
    layers = (getattr(config, name, None) for name in ("num_hidden_layers", "n_layers", "n_layer"))
    size = Size(
        source.family.model_type,
        next((width for width in widths if width), 0),
        next((count for count in layers if count), 0),
    )
    tokenizer = None if limit is None else TEXT.load(folder, config)
    return chosen._replace(size=size, max_length=limit, tokenizer=tokenizer)


def is_causal(path: str | None) -> bool:
    """Whether a model that a person named reads texts from left to right alone."""
    if path is None:
        return False
    folder = find_local(path)
    if folder is None:
        return "gpt2" in path.lower()
    return read_source(folder).family.model_type in _CAUSAL


_IMAGES = "image_classification"


def _fitting(task: str, texts: Sequence[str], accelerated: bool) -> FirstModel:
    place = "for a machine with an accelerator" if accelerated else "small, for a CPU"
    if task == _IMAGES:
        name = "google/vit-base-patch16-224-in21k" if accelerated else "microsoft/resnet-18"
        return FirstModel(name, place, _SIZES[name], None)
    if task == "causal_lm":
        name = "openai-community/gpt2"
        return FirstModel(name, "the one that reads from left to right", _SIZES[name], 1024)
    foreign = _not_english(texts)
    if foreign:
        name = "distilbert/distilbert-base-multilingual-cased"
        name = "FacebookAI/xlm-roberta-base" if accelerated else name
        return FirstModel(name, f"of many languages, as {foreign}; {place}", _SIZES[name])
    if task == "masked_lm":
        name = _BERT if accelerated else "distilbert/distilbert-base-uncased"
    elif task == "token_classification" and accelerated:
        name = "google-bert/bert-base-cased"
    else:
        name = _BERT if accelerated and task != "few_shot" else _MINILM
    return FirstModel(name, place, _SIZES[name])


def _not_english(texts: Sequence[str]) -> str:
    """Why texts look as if in another language; empty where they do not."""
    words = re.findall(r"[^\W\d_]+", " ".join(texts).lower())
    letters = "".join(words)
    if not letters:
        return ""
    latin = sum(letter < "\u0250" for letter in letters) / len(letters)
    if latin < 0.7:
        return f"{1 - latin:.0%} of the letters are not Latin"
    common = sum(word in _COMMON for word in words) / len(words)
    if len(words) >= _ENOUGH and common < 0.06:
        return f"common English words are {common:.1%} of all"
    return ""


def _guess_size(name: str) -> Size:
    """Of a hub id whose files are not here."""
    if name in _SIZES:
        return _SIZES[name]
    lower = name.lower()
    kinds = (
        *("xlm-roberta", "roberta", "distilbert", "modernbert", "gpt2", "dinov2", "vit"),
        *("resnet", "convnext", "bert"),
    )
    family = next((kind for kind in kinds if kind in lower), "bert")
    if re.search(r"large|xl\b|medium", lower):
        return Size(family, 1024, 24)
    small = re.search(r"mini|tiny|small", lower) is not None
    convolves = family in ("resnet", "convnext")
    return Size(family, 0 if convolves else 384 if small else 768, 12)


def check_task(name: str) -> None:
    """Refuses a task that jaxtune has not.

    Raises:
      UserError: with the nearest name.
    """
    try:
        find_task(name)
    except UserError as error:
        raise UserError(str(error).replace("config.task is", "--task=")) from None
