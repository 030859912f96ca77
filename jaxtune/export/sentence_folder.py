"""A model of embeddings in a folder: how it pools, and the files of sentence-transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.models.design import embedding_width
from jaxtune.models.pooling import (
    EMBEDDING,
    HOWS,
    EmbeddingHead,
    How,
    Pooling,
    with_pooling,
)
from jaxtune.models.pretrained import Pretrained
from jaxtune.models.registry import saved_head
from jaxtune.models.sentence_files import SentenceFiles, read_sentence_files, sentence_files
from jaxtune.models.source import Source, read_source

CARD = "jaxtune.json"


def files_beside(pretrained: Pretrained, card: Mapping[str, Any]) -> dict[str, Any]:
    """The files of sentence-transformers, of a model of embeddings."""
    top = pretrained.module.top
    if not isinstance(top, EmbeddingHead):
        return {}
    names = {"query": card.get("query_prompt"), "document": card.get("document_prompt")}
    prompts = {name: prompt for name, prompt in names.items() if prompt}
    return sentence_files(
        SentenceFiles(top.pooling, prompts, card.get("max_length")),
        embedding_width(pretrained.design),
    )


def pooling_fields(pretrained: Pretrained) -> dict[str, Any]:
    """What jaxtune.json says of how a model of embeddings pools; nothing of others."""
    top = pretrained.module.top
    if not isinstance(top, EmbeddingHead):
        return {}
    return {"pooling": top.pooling.how, "normalize": top.pooling.normalize}


def find_pooling(folder: Path, card: Mapping[str, Any]) -> Pooling | None:
    """How a saved model pools, where it is one of embeddings.

    Its jaxtune.json says so, or a folder of sentence-transformers; None for other models.

    Args:
      folder: of the model.
      card: its jaxtune.json.

    Raises:
      UserError: another pooling in jaxtune.json; or as `read_sentence_files`.
    """
    if card.get("task") == EMBEDDING:
        how: How = card.get("pooling") or "mean"
        if how not in HOWS:
            raise UserError(
                f"{folder / CARD}: pooling is {how[:80]!r}, expected one of {', '.join(HOWS)}."
            )
        return Pooling(how, bool(card.get("normalize")))
    found = None if card.get("task") else read_sentence_files(folder)
    return None if found is None else found.pooling


def pooled_source(source: Source, folder: Path, card: Mapping[str, Any]) -> Source | None:
    """A model's source with the head of embeddings that its folder says; None where it says none.

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

    The head is that of its files; of a bare encoder that of embeddings where the folder says how it
    pools, else `sequence`, which is then new.

    Args:
      folder: in the transformers layout.
      card: its jaxtune.json.

    Raises:
      UserError: as `read_source` and `find_pooling`.
    """
    source = read_source(folder)
    head = saved_head(source.family, source.hf_config)
    pooled = pooled_source(source, folder, card) if head is None else None
    return (source, head or "sequence") if pooled is None else (pooled, EMBEDDING)
