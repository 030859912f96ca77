"""How well documents are ranked: NDCG, reciprocal rank and recall, as trec_eval defines them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

RECALLS = (1, 10, 100)
CUT = 10
"""Documents of a ranking that NDCG and MRR look at."""

_BLOCK = 16_384  # documents that are compared with queries at a time
_QUERIES = 1_024  # the most of these

Ranking = list[tuple[str, float]]
"""(document's id, score), the best first."""


class Best(NamedTuple):
    """The best documents of some queries.

    Attributes:
      places: of documents.
      scores: of these.
    """

    places: Int[np.ndarray, "q k"]
    scores: Float[np.ndarray, "q k"]


def rank(
    queries: Mapping[str, Float[np.ndarray, " d"]],
    names: list[str],
    documents: Float[np.ndarray, "n d"],
    count: int = max(RECALLS),
) -> dict[str, Ranking]:
    """The best documents of each query by the product of their vectors.

    Of equal scores the document comes first whose id is last in the order of text, as in trec_eval.
    A document whose id is the query's own is left out, as BEIR does.

    Args:
      queries: vectors of norm 1, by id.
      names: ids of the documents.
      documents: vectors of norm 1, float32.
      count: documents of each ranking.
    """
    order = sorted(range(len(names)), key=lambda i: names[i], reverse=True)
    sorted_names, sorted_documents = [names[i] for i in order], documents[order]
    found: dict[str, Ranking] = {}
    ids = list(queries)
    for start in range(0, len(ids), _QUERIES):
        part = ids[start : start + _QUERIES]
        best = _best(np.stack([queries[i] for i in part]), sorted_documents, count + 1)
        for name, places, scores in zip(part, best.places, best.scores, strict=True):
            ranking = [(sorted_names[p], float(s)) for p, s in zip(places, scores, strict=True)]
            found[name] = [pair for pair in ranking if pair[0] != name][:count]
    return found


def _best(
    queries: Float[np.ndarray, "q d"], documents: Float[np.ndarray, "n d"], count: int
) -> Best:
    """Of equal scores the first."""
    places = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(documents), _BLOCK):
        own = queries @ documents[start : start + _BLOCK].T  # [q n]
        numbers = np.broadcast_to(np.arange(start, start + own.shape[1]), own.shape)
        scores, places = np.hstack([scores, own]), np.hstack([places, numbers])
        kept = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores, places = (np.take_along_axis(x, kept, axis=1) for x in (scores, places))
    return Best(places, scores)


def retrieval_scores(
    rankings: Mapping[str, Ranking], judged: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """Means over the queries of `ndcg@10`, `mrr@10` and `recall@k`.

    `NDCG@10 = DCG / DCG of the best ranking`, with `DCG = sum_r grade_r / log2(1 + r)`; the
    reciprocal rank is one over that of the first relevant document, 0 where none is among the first
    ten; recall@k the share of the relevant ones among the first k.

    Args:
      rankings: documents of each query, the best first.
      judged: grades; documents without one are not relevant.

    Source: Järvelin and Kekäläinen 2002, Cumulated Gain-based Evaluation of IR Techniques.
    """
    names = [f"ndcg@{CUT}", f"mrr@{CUT}", *(f"recall@{k}" for k in RECALLS)]
    rows = [_of_query(rankings[query], grades) for query, grades in judged.items()]
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def _of_query(ranking: Ranking, grades: Mapping[str, int]) -> list[float]:
    found = np.array([max(grades.get(name, 0), 0) for name, _ in ranking], np.float64)
    best = np.sort([grade for grade in grades.values() if grade > 0])[::-1]
    ideal, count = _gain(best.astype(np.float64)), len(best)
    first = np.flatnonzero(found[:CUT] > 0)
    recalls = [float((found[:k] > 0).sum() / count) if count else 0.0 for k in RECALLS]
    return [
        _gain(found) / ideal if ideal else 0.0,
        1.0 / (1 + first[0]) if len(first) else 0.0,
        *recalls,
    ]


def _gain(grades: Float[np.ndarray, " r"]) -> float:
    top = grades[:CUT]
    return float((top / np.log2(2 + np.arange(len(top)))).sum())
