"""A saved embedding model on a retrieval test."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxtune.core.errors import UserError
from jaxtune.data.text.retrieval import Retrieval, read_retrieval
from jaxtune.io.atomic import write_atomic
from jaxtune.models.pooling import EMBEDDING
from jaxtune.run.predictions import embed
from jaxtune.run.saved import SavedModel
from jaxtune.tasks.pair_scores import unit
from jaxtune.tasks.retrieval_scores import Ranking, rank, retrieval_scores


def retrieve(
    saved: SavedModel, folder: Path, batch_size: int, rankings: Path | None = None
) -> dict[str, float]:
    """The scores of `retrieval_scores`, of the cosines of a model's embeddings.

    Queries and documents get the prompts of the model, where it has any.

    Args:
      saved: a model of embeddings.
      folder: as `read_retrieval` reads it.
      batch_size: texts a step.
      rankings: gets the best documents of each query, in trec_eval's format; None writes none.

    Raises:
      UserError: another model; or as `read_retrieval`.
    """
    if saved.task.head != EMBEDDING:
        raise UserError(
            f"{folder} is a retrieval test, but {saved.pretrained.folder} is a model of"
            f" {saved.task.name}: expected one of embeddings."
        )
    test = read_retrieval(folder)
    found = _rank(saved, test, batch_size)
    if rankings is not None:
        write_atomic(rankings, _trec(found))
    return retrieval_scores(found, test.judged)


def _rank(saved: SavedModel, test: Retrieval, batch_size: int) -> dict[str, Ranking]:
    documents = _vectors(saved, test.documents, "document", batch_size)
    queries = _vectors(saved, test.queries, "query", batch_size)
    by_id = dict(zip(test.queries, queries, strict=True))
    return rank(by_id, [*test.documents], documents)


def _vectors(
    saved: SavedModel, texts: Mapping[str, str], kind: str, batch_size: int
) -> Float[np.ndarray, "n d"]:
    tokens = saved.data.tokens
    has = tokens.query_prompt if kind == "query" else tokens.document_prompt
    found = embed(saved, {"text": [*texts.values()]}, "own", batch_size, kind if has else None)
    return unit(found).astype(np.float32)


def _trec(rankings: Mapping[str, Ranking]) -> str:
    lines = (
        f"{query} Q0 {document} {place} {score:.9g} jaxtune\n"
        for query, ranking in rankings.items()
        for place, (document, score) in enumerate(ranking, start=1)
    )
    return "".join(lines)
