"""Text encoders from folders of any kind: how they pool, and what is put before texts."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxtune.models.pooling import Pooling
from jaxtune.models.sentence_files import SentenceFiles, read_sentence_files
from jaxtune.settings import ModelSettings, Settings


def with_folder(settings: Settings, folder: Path, prompts: bool = True) -> Settings:
    """The settings of a text encoder with what its folder says where they say nothing.

    Args:
      settings: of the task `embedding` or `few_shot`.
      folder: of the model to begin with.
      prompts: whether the task puts any before texts; else the folder may end in a classifier,
        whose place a new one takes.

    Raises:
      UserError: as `read_sentence_files`.
    """
    found = read_sentence_files(folder, classified=not prompts)
    usual = SentenceFiles(Pooling(normalize=True)) if found is None else found
    model, tokens = settings.model, settings.data.tokens
    model = dataclasses.replace(
        model,
        pooling=model.pooling or usual.pooling.how,
        normalize=usual.pooling.normalize if model.normalize is None else model.normalize,
    )
    if not prompts:
        return dataclasses.replace(settings, model=model)
    own = {"query_prompt": tokens.query_prompt, "document_prompt": tokens.document_prompt}
    known = usual.known_prompts()
    texts = {name: known[name] if text is None else text for name, text in own.items()}
    data = dataclasses.replace(settings.data, tokens=dataclasses.replace(tokens, **texts))
    return dataclasses.replace(settings, model=model, data=data)


def pooling_of(model: ModelSettings) -> Pooling:
    """Of settings from `with_folder`."""
    return Pooling(model.pooling or "mean", bool(model.normalize))


def prompts_of(settings: Settings) -> dict[str, Any]:
    """What jaxtune.json keeps of settings from `with_folder`."""
    tokens = settings.data.tokens
    return {"query_prompt": tokens.query_prompt, "document_prompt": tokens.document_prompt}
