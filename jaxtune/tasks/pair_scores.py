"""How well embeddings tell which texts belong together: of pairs with a score, or of anchors.

In float64 and of all examples, so that neither batches nor devices change a number.
"""

import numpy as np
from jaxtyping import Float

from jaxtune.data.batching.groups import Groups
from jaxtune.tasks.probabilities import logsumexp

BLOCK = 1000
"""Groups whose documents an anchor is compared with."""

SCALE = 20.0
"""Of cosines in the losses here."""


def unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Vectors of norm 1, float64; of 0 stays 0."""
    x = x.astype(np.float64)
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norms > 0, norms, 1.0)


def scored_pairs(
    outputs: Float[np.ndarray, "N d"], groups: Groups, scores: Float[np.ndarray, " N"]
) -> dict[str, float]:
    """Of pairs with a score: correlations of the cosines with it, and the CoSENT loss.

    Args:
      outputs: embeddings of all texts.
      groups: pairs.
      scores: of each text, that of its pair.

    Returns:
      `spearman` and `pearson`, NaN where cosines or scores are all the same; `loss`, the mean of
      the CoSENT losses of blocks of BLOCK pairs, each weighed by its pairs.
    """
    from scipy import stats

    first = groups.offsets[:-1]
    x = unit(outputs)
    cosines = (x[first] * x[first + 1]).sum(-1)
    own = scores[first].astype(np.float64)
    spread = bool(np.isfinite(cosines).all() and np.ptp(cosines) and np.ptp(own))
    spearman, pearson = (
        (float(f(cosines, own)[0]) if spread else float("nan"))  # pyright: ignore[reportArgumentType]
        for f in (stats.spearmanr, stats.pearsonr)
    )
    blocks = [slice(i, i + BLOCK) for i in range(0, len(own), BLOCK)]
    losses = [_cosent(cosines[block], own[block]) * len(own[block]) for block in blocks]
    return {"spearman": spearman, "pearson": pearson, "loss": sum(losses) / len(own)}


def _cosent(cosines: np.ndarray, scores: np.ndarray) -> float:
    gaps = SCALE * (cosines[:, None] - cosines)[scores[:, None] < scores]
    return float(logsumexp(np.concatenate([[0.0], gaps])))


def anchors(outputs: Float[np.ndarray, "N d"], groups: Groups) -> dict[str, float]:
    """Of anchors: where their positive stands among all documents of a block, by the cosine.

    Args:
      outputs: embeddings of all texts.
      groups: an anchor, its positive, then negatives.

    Returns:
      `accuracy`, the share of the anchors whose positive is the nearest; `mrr`, the mean of one
      over its rank, 1 for the nearest; `loss`, the cross-entropy of the positive among the
      documents; and, where there are negatives, `triplet_accuracy`, the share of all negatives that
      are farther from their anchor than its positive. Documents are those of BLOCK groups
      together, in their order; one that is as near as the positive is none before it.
    """
    x, sizes = unit(outputs), groups.sizes
    ranks, losses, told = [], [], []
    for start in range(0, len(sizes), BLOCK):
        own = np.arange(start, min(start + BLOCK, len(sizes)))
        texts = groups.texts(own)
        documents = texts[groups.places(texts) > 0]
        z = x[groups.offsets[own]] @ x[documents].T  # [g n]
        right = np.searchsorted(documents, groups.offsets[own] + 1)
        near = np.take_along_axis(z, right[:, None], axis=1)
        ranks.append(1 + (z > near + 1e-12).sum(1))
        losses.append(logsumexp(SCALE * z) - SCALE * near[:, 0])
        group, place = groups.of(documents), groups.places(documents)
        hard = place > 1
        rows = group[hard] - start
        told.append(z[rows, np.flatnonzero(hard)] < near[rows, 0])
    rank, beaten = np.concatenate(ranks), np.concatenate(told)
    found = {
        "accuracy": float(np.mean(rank == 1)),
        "mrr": float(np.mean(1.0 / rank)),
        "loss": float(np.mean(np.concatenate(losses))),
    }
    return found | ({"triplet_accuracy": float(np.mean(beaten))} if len(beaten) else {})
