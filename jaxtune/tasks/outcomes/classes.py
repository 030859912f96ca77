"""Rows with one class each, or with any number of them: the logits, of very many the largest.

The arrays of both: `logits` [n k], and where these are not of all classes in their order, `classes`
[n k], whose they are, the likeliest first.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from jaxtune.data.sources.class_sets import of_flags
from jaxtune.tasks.outcomes.outcome import Outcome, Told

MOST = 1 << 22
"""Logits that are kept whole; of more, the largest of each row."""

_FEWEST, _MOST_OF_A_ROW = 8, 64


def of_single(outputs: Float32[np.ndarray, "n c"], examples: Any) -> Outcome:
    """Of rows with one class each.

    Args:
      outputs: logits.
      examples: with `labels`, class indices, int32 [n]; those beyond c are never predicted.

    Returns:
      With `labels` [n], `label_logits` [n], NaN of a class that the model does not have, and
      `log_sums` [n], the logarithm of the sum of the exponentials of all logits, float64.
    """
    labels, n = np.asarray(examples.labels), len(outputs)
    known = labels < outputs.shape[1]
    own = outputs[np.arange(n), np.where(known, labels, 0)]
    log_sums, best = np.empty(n), np.empty(n)
    for rows in _chunks(outputs):
        part = outputs[rows].astype(np.float64)
        best[rows] = part.max(axis=1)
        log_sums[rows] = best[rows] + np.log(np.exp(part - best[rows][:, None]).sum(axis=1))
    predicted = np.argmax(outputs, axis=1)
    sure = np.exp(best - log_sums)
    arrays = {
        "labels": labels.astype(np.int32),
        "label_logits": np.where(known, own, np.nan).astype(np.float32),
        "log_sums": log_sums,
    }

    def tell(i: int) -> Told:
        right = float(np.exp(own[i] - log_sums[i])) if known[i] else 0.0
        said = {"said": [int(predicted[i])], "right": [int(labels[i])]}
        return said | {"probability": float(sure[i]), "right_probability": right}

    badness = np.where(predicted == labels, 0.0, sure)
    return Outcome(arrays | largest(outputs), examples.lengths, badness, tell)


def of_images(outputs: Float32[np.ndarray, "n c"], examples: Any) -> Outcome:
    """As `of_single`, of images, which are all of one size."""
    return of_single(outputs, examples)._replace(unit="")


def of_sets(outputs: Float32[np.ndarray, "n c"], examples: Any) -> Outcome:
    """Of rows with any number of classes.

    Args:
      outputs: logits; a class applies where its is above 0.
      examples: with `labels`, class sets, or flags [n c]; there may be further classes.

    Returns:
      With `label_classes`, row after row, `label_offsets` [n+1], where each row begins, and the
      `label_logits` of these classes, NaN of those that the model does not have.
    """
    n, c = outputs.shape
    sets = of_flags(examples.labels)
    known = sets.classes < c
    owners = np.repeat(np.arange(n), np.diff(sets.offsets))
    own = outputs[owners, np.where(known, sets.classes, 0)]
    badness, worst = np.zeros(n), np.zeros(n, np.int64)
    for rows in _chunks(outputs):
        wrong = _wrongness(outputs[rows], sets.flags(rows)[:, :c] > 0.5)
        worst[rows] = wrong.argmax(axis=1)
        badness[rows] = wrong.max(axis=1)
    arrays = {
        "label_classes": sets.classes,
        "label_offsets": sets.offsets,
        "label_logits": np.where(known, own, np.nan).astype(np.float32),
    }

    def tell(i: int) -> Told:
        right = sets.classes[sets.offsets[i] : sets.offsets[i + 1]].tolist()
        said = np.flatnonzero(outputs[i] > 0).tolist()
        return {"said": said, "right": right, "worst": int(worst[i]), "probability": badness[i]}

    return Outcome(arrays | largest(outputs), examples.lengths, badness, tell)


def largest(outputs: Float32[np.ndarray, "n c"]) -> dict[str, np.ndarray]:
    """All logits where they are few; else the largest of each row, and their classes."""
    n, c = outputs.shape
    if n * c <= MOST or c <= _FEWEST:
        return {"logits": outputs}
    k = int(np.clip(MOST // n, _FEWEST, min(_MOST_OF_A_ROW, c)))
    logits, classes = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    for rows in _chunks(outputs):
        found = np.sort(np.argpartition(-outputs[rows], k - 1, axis=1)[:, :k], axis=1)
        values = np.take_along_axis(outputs[rows], found, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")  # of equals the first class
        logits[rows] = np.take_along_axis(values, order, axis=1)
        classes[rows] = np.take_along_axis(found, order, axis=1)
    return {"logits": logits, "classes": classes}


def _wrongness(logits: Float32[np.ndarray, "m c"], right: np.ndarray) -> Float64[np.ndarray, "m c"]:
    """The probability of each decision that is wrong; 0 of one that is right."""
    with np.errstate(over="ignore"):
        sure = 1.0 / (1.0 + np.exp(-np.abs(logits.astype(np.float64))))
    return np.where((logits > 0) == right, 0.0, sure)


def _chunks(outputs: np.ndarray) -> Iterator[slice]:
    """Some rows at a time, so that what is computed of them takes little memory."""
    size = max(MOST // max(outputs.shape[1], 1), 1)
    for start in range(0, len(outputs), size):
        yield slice(start, min(start + size, len(outputs)))
