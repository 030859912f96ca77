"""A model of embeddings in a folder: how it pools, and the files of sentence-transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.models.design import embedding_width
from jaxtune.models.pooling import (
    CLASSIFIER,
    EMBEDDING,
    HOWS,
    POOLED,
    EmbeddingHead,
    How,
    PooledClassifier,
    Pooling,
    with_pooling,
)
from jaxtune.models.pretrained import Pretrained
from jaxtune.models.registry import saved_head
from jaxtune.models.sentence_files import (
    LINEAR,
    SentenceFiles,
    dense_file,
    read_sentence_files,
    sentence_files,
)
from jaxtune.models.source import Source, read_source

CARD = "jaxtune.json"
FEW_SHOT = "few_shot"
"""The task whose models have one linear layer behind the embedding."""


def files_beside(pretrained: Pretrained, card: Mapping[str, Any]) -> dict[str, Any]:
    """The files of sentence-transformers, of a model of embeddings or a classifier of them."""
    top, design = pretrained.module.top, pretrained.design
    if not isinstance(top, EmbeddingHead | PooledClassifier):
        return {}
    names = {"query": card.get("query_prompt"), "document": card.get("document_prompt")}
    prompts = {name: prompt for name, prompt in names.items() if prompt}
    found = SentenceFiles(top.pooling, prompts, card.get("max_length"))
    if isinstance(top, EmbeddingHead):
        return sentence_files(found, embedding_width(design))
    return sentence_files(found, *design.shapes[CLASSIFIER]["kernel"].shape)


def tensors_beside(
    pretrained: Pretrained, tensors: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Those of the encoder, and those of the linear layer by the place of their file.

    Args:
      pretrained: the model.
      tensors: all of them by their names in a file.
    """
    top, prefix = pretrained.module.top, f"{CLASSIFIER}."
    if not isinstance(top, PooledClassifier):
        return tensors, {}
    own = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    layer = {
        f"{LINEAR}.{name.removeprefix(prefix)}": tensors[name] for name in tensors.keys() - own
    }
    return own, {dense_file(top.pooling): layer}


def pooling_fields(pretrained: Pretrained) -> dict[str, Any]:
    """What jaxtune.json says of how a model of embeddings pools; nothing of others."""
    top = pretrained.module.top
    if not isinstance(top, EmbeddingHead | PooledClassifier):
        return {}
    return {"pooling": top.pooling.how, "normalize": top.pooling.normalize}


def find_pooling(folder: Path, card: Mapping[str, Any]) -> Pooling | None:
    """How a saved model pools, where it is one of embeddings or a classifier of them.

    Its jaxtune.json says so, or a folder of sentence-transformers; None for other models.

    Args:
      folder: of the model.
      card: its jaxtune.json.

    Raises:
      UserError: another pooling in jaxtune.json; or as `read_sentence_files`.
    """
    if card.get("task") in (EMBEDDING, FEW_SHOT):
        how: How = card.get("pooling") or "mean"
        if how not in HOWS:
            raise UserError(
                f"{folder / CARD}: pooling is {how[:80]!r}, expected one of {', '.join(HOWS)}."
            )
        return Pooling(how, bool(card.get("normalize")))
    found = None if card.get("task") else read_sentence_files(folder)
    return None if found is None else found.pooling


def pooled_source(source: Source, folder: Path, card: Mapping[str, Any]) -> Source | None:
    """A model's source with the heads that pool as its folder says; None where it says nothing.

    Args:
      source: of the model, or of its base.
      folder: of the model.
      card: its jaxtune.json.

    Raises:
      UserError: as `find_pooling`.
    """
    pooling = find_pooling(folder, card)
    if pooling is None:
        return None
    return source._replace(family=with_pooling(source.family, pooling))


def source_with_head(folder: Path, card: Mapping[str, Any]) -> tuple[Source, str]:
    """A model's source and the name of its head.

    The head is that of its files; of a bare encoder that of embeddings, or a classifier of them,
    where the folder says how it pools, else `sequence`, which is then new.

    Args:
      folder: in the transformers layout.
      card: its jaxtune.json.

    Raises:
      UserError: as `read_source` and `find_pooling`.
    """
    source = read_source(folder)
    head = saved_head(source.family, source.hf_config)
    pooled = pooled_source(source, folder, card) if head is None else None
    if pooled is None:
        return source, head or "sequence"
    return pooled, POOLED if card.get("task") == FEW_SHOT else EMBEDDING
