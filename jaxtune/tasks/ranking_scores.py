"""How well the passages of each query are ranked, as trec_eval defines it, in float64."""

import numpy as np
from jaxtyping import Float

from jaxtune.data.batching.groups import Groups
from jaxtune.tasks.probabilities import logsumexp
from jaxtune.tasks.retrieval_scores import retrieval_scores


def scores(
    outputs: Float[np.ndarray, " N"], groups: Groups, relevance: Float[np.ndarray, " N"]
) -> dict[str, float]:
    """Means over the queries; of equal scores the later passage stands first, as in trec_eval.

    Args:
      outputs: of all passages.
      groups: the passages of each query.
      relevance: of each passage; those above 0 are relevant.

    Returns:
      `ndcg@10` and `mrr@10` as `retrieval_scores` has them; `map`, the mean of the average
      precision, `1 / R sum_r P(r)` over the ranks r of the R relevant passages, where P(r) is the
      share of relevant ones among the first r; each is 0 for a query without any. And `loss`, the
      cross-entropy of the relevance by the softmax of the outputs, in nats, the mean over the
      queries that have a relevant passage.

    Source: Buckley and Voorhees 2000, Evaluating Evaluation Measure Stability, section 2.
    """
    rankings, judged, precisions, losses = {}, {}, [], []
    for i, (start, stop) in enumerate(zip(groups.offsets[:-1], groups.offsets[1:], strict=True)):
        z = outputs[start:stop].astype(np.float64)
        grades = relevance[start:stop].astype(np.float64)
        order = np.lexsort((-np.arange(len(z)), -z))
        query = str(i)
        rankings[query] = [(str(place), float(z[place])) for place in order]
        judged[query] = {str(place): grades[place] for place in range(len(z))}
        precisions.append(_average_precision(grades[order] > 0))
        if grades.sum() > 0:
            losses.append(float(logsumexp(z) - (grades / grades.sum() * z).sum()))
    found = retrieval_scores(rankings, judged)
    return {
        "ndcg@10": found["ndcg@10"],
        "mrr@10": found["mrr@10"],
        "map": float(np.mean(precisions)),
        "loss": float(np.mean(losses)) if losses else 0.0,
    }


def _average_precision(relevant: np.ndarray) -> float:
    ranks = 1 + np.flatnonzero(relevant)
    return float(np.mean(np.arange(1, 1 + len(ranks)) / ranks)) if len(ranks) else 0.0
