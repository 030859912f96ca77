"""Scores as functions of sums over rows, so that they are known of any sample of the rows.

A score of n rows is `f(sum_i s_i)` with some numbers s_i of each row: an accuracy of (1, hit), an
F1 of (true, found, hits), a correlation of the moments. Sampling rows is weighing the s_i.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64

from jaxtune.run.predictions_folder import Kept
from jaxtune.tasks.outcomes.tags import entities_of

Totals = Float64[np.ndarray, "b k"]


class RowSums(NamedTuple):
    """A score of n rows.

    Attributes:
      sums: s, sparse [n k].
      score: f, of b sums at once, [b k] -> [b].
    """

    sums: Any
    score: Callable[[Totals], Float64[np.ndarray, " b"]]

    @property
    def width(self) -> int:
        """K."""
        return self.sums.shape[1]

    def widened(self, width: int) -> "RowSums":
        """The same with numbers of 0 behind the others, of classes that no row has."""
        shape = (self.sums.shape[0], width)
        sums = self.sums
        return self._replace(sums=sp.csr_array((sums.data, sums.indices, sums.indptr), shape=shape))

    def of(self, weights: Float64[np.ndarray, "b n"]) -> Float64[np.ndarray, " b"]:
        """The score of b samples, in which each row counts as often as its weight says."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.score((self.sums.T @ weights.T).T)


def row_sums(kept: Kept, metric: str) -> RowSums | None:
    """A score of the rows that were kept; None of one that is no function of sums, or not kept.

    Args:
      kept: what the best step gave.
      metric: as the task calls it.
    """
    make = _MAKERS.get(kept.task)
    return make(kept, metric) if make is not None else None


def same_rows(one: Kept, other: Kept) -> bool:
    """Whether two runs were scored on the same rows, as far as labels and inputs tell."""
    if (one.task, one.split) != (other.task, other.split):
        return False
    return all(
        name in other.arrays and np.array_equal(one.arrays[name], other.arrays[name])
        for name in _RIGHT.get(one.task, ())
    )


_RIGHT: Mapping[str, tuple[str, ...]] = {
    "classification": ("labels",),
    "few_shot": ("labels",),
    "image_classification": ("labels",),
    "multi_label": ("label_classes", "label_offsets"),
    "regression": ("targets",),
    "token_classification": ("right", "offsets"),
    "question_answering": ("has_answer", "lengths"),
    "causal_lm": ("counts",),
    "masked_lm": ("counts",),
}
"""The arrays of each task that follow from the data alone."""


def _single(kept: Kept, metric: str) -> RowSums | None:
    """Of rows with one class each."""
    arrays: Mapping[str, Any] = kept.arrays
    labels, best = arrays["labels"].astype(np.int64), np.argmax(arrays["logits"], axis=1)
    if "classes" in arrays:
        best = arrays["classes"][np.arange(len(best)), best]
    if metric == "accuracy":
        return _mean(labels == best)
    if metric == "loss":
        own = arrays["label_logits"].astype(np.float64)
        known = np.isfinite(own)
        losses = np.where(known, arrays["log_sums"] - np.where(known, own, 0.0), 0.0)
        return RowSums(_columns(known, losses), _ratio)
    if metric not in ("macro_f1", "mcc"):
        return None
    rows, hits = np.arange(len(labels)), labels == best
    pairs = ((rows, labels), (rows, best), (rows[hits], labels[hits]))
    return RowSums(
        _by_class(len(rows), pairs), _macro_occurring if metric == "macro_f1" else _matthews
    )


def _sets(kept: Kept, metric: str) -> RowSums | None:
    """Of rows with any number of classes; where not all logits were kept, none is known."""
    arrays = kept.arrays
    if "classes" in arrays:
        return None
    said = arrays["logits"] > 0
    classes, count = arrays["label_classes"].astype(np.int64), len(said)
    owners = np.repeat(np.arange(count), np.diff(arrays["label_offsets"]))
    known = classes < said.shape[1]
    hit = np.zeros(len(classes), bool)
    hit[known] = said[owners[known], classes[known]]
    parts = _by_class(count, ((owners, classes), np.nonzero(said), (owners[hit], classes[hit])))
    if metric == "macro_f1":
        return RowSums(parts, _macro_of(max(said.shape[1], 1 + int(classes.max(initial=-1)))))
    counts = [np.asarray(parts[:, kind::3].sum(axis=1)).ravel() for kind in range(3)]
    if metric == "micro_f1":
        return RowSums(_columns(*counts), _f1)
    if metric == "subset_accuracy":
        return _mean((counts[0] == counts[2]) & (counts[1] == counts[2]))
    return None


def _numbers(kept: Kept, metric: str) -> RowSums | None:
    """Of a regression."""
    x, y = (kept.arrays[name].astype(np.float64) for name in ("predictions", "targets"))
    if metric in ("mse", "loss"):
        return _mean(((x - y) ** 2).mean(axis=1))
    if metric != "pearson":
        return None
    x, y = x - y.mean(axis=0), y - y.mean(axis=0)  # or squares of large numbers would cancel
    parts = (x, y, x * x, y * y, x * y)
    ones = np.ones((len(x), 1))
    return RowSums(sp.csr_array(np.concatenate([ones, *parts], axis=1)), _pearson)


def _tags(kept: Kept, metric: str) -> RowSums | None:
    """Of sentences with a tag for each word."""
    arrays, count = kept.arrays, len(kept.arrays["offsets"]) - 1
    if metric == "accuracy":
        hits = arrays["right"] == arrays["predicted"]
        sizes = np.diff(arrays["offsets"])
        owners = np.repeat(np.arange(count), sizes)
        return RowSums(_columns(sizes, np.bincount(owners, hits, count)), _ratio)
    if metric not in ("f1", "precision", "recall"):
        return None
    sides = [entities_of(arrays, kept.names, side) for side in ("right", "predicted")]
    pairs = [(set(a), set(b)) for a, b in zip(*sides, strict=True)]
    counts = np.array([[len(a), len(b), len(a & b)] for a, b in pairs])
    chosen: Mapping[str, Any] = {"f1": _f1, "precision": _precision, "recall": _recall}
    return RowSums(sp.csr_array(counts.astype(np.float64)), chosen[metric])


def _answers(kept: Kept, metric: str) -> RowSums | None:
    """Of questions."""
    name = {"exact_match": "exact", "f1": "f1"}.get(metric)
    return None if name is None else _mean(kept.arrays[name])


def _blocks(kept: Kept, metric: str) -> RowSums | None:
    """Of a language model."""
    parts = _columns(kept.arrays["counts"], -kept.arrays["log_likelihoods"])
    if metric == "perplexity":
        return RowSums(parts, lambda totals: np.exp(_ratio(totals)))
    return RowSums(parts, _ratio) if metric == "loss" else None


_MAKERS: Mapping[str, Callable[[Kept, str], RowSums | None]] = {
    "classification": _single,
    "few_shot": _single,
    "image_classification": _single,
    "multi_label": _sets,
    "regression": _numbers,
    "token_classification": _tags,
    "question_answering": _answers,
    "causal_lm": _blocks,
    "masked_lm": _blocks,
}


def _mean(values: Any) -> RowSums:
    return RowSums(_columns(np.ones(len(values)), values), _ratio)


def _columns(*parts: Any) -> Any:
    return sp.csr_array(np.stack([np.asarray(part, np.float64) for part in parts], axis=1))


def _by_class(count: int, pairs: Any) -> Any:
    """Sparse [n 3c]: of each class, whether a row has it, is said to have it, and both.

    Args:
      count: n.
      pairs: (rows, classes) of each of the three.
    """
    rows = np.concatenate([part for part, _ in pairs])
    columns = np.concatenate([3 * classes + kind for kind, (_, classes) in enumerate(pairs)])
    shape = (count, 3 * (1 + int(columns.max(initial=0)) // 3))
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _ratio(totals: Totals) -> Any:
    return totals[:, 1] / totals[:, 0]


def _divide(above: Any, below: Any) -> Any:
    return np.divide(above, below, out=np.zeros_like(below, np.float64), where=below > 0)


def _f1(totals: Totals) -> Any:
    true, found, hits = totals.T
    return _divide(2.0 * hits, true + found)


def _precision(totals: Totals) -> Any:
    return _divide(totals[:, 2], totals[:, 1])


def _recall(totals: Totals) -> Any:
    return _divide(totals[:, 2], totals[:, 0])


def _macro_of(count: int) -> Callable[[Totals], Any]:
    """The mean of F1 over c classes; 0 for one with neither."""

    def score(totals: Totals) -> Any:
        true, found, hits = (totals[:, kind::3] for kind in range(3))
        return _divide(2.0 * hits, true + found).sum(axis=1) / count

    return score


def _macro_occurring(totals: Totals) -> Any:
    true, found, hits = (totals[:, kind::3] for kind in range(3))
    f1 = _divide(2.0 * hits, true + found)
    return f1.sum(axis=1) / np.count_nonzero(true + found, axis=1)


def _matthews(totals: Totals) -> Any:
    true, found, hits = (totals[:, kind::3] for kind in range(3))
    n, correct = true.sum(axis=1), hits.sum(axis=1)
    apart = (n**2 - (found**2).sum(axis=1)) * (n**2 - (true**2).sum(axis=1))
    return _divide(correct * n - (true * found).sum(axis=1), np.sqrt(apart))


def _pearson(totals: Totals) -> Any:
    n, parts = totals[:, :1], np.split(totals[:, 1:], 5, axis=1)
    x, y, xx, yy, xy = (part / n for part in parts)
    return ((xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))).mean(axis=1)
