"""Scores from sums over rows against the tasks' own; differences against scipy's tests."""

import itertools

import numpy as np
import pytest
from finished_runs import MADE, kept_of
from scipy import sparse, stats

from jaxtune.studies.paired import difference
from jaxtune.studies.row_sums import RowSums, row_sums, same_rows
from jaxtune.tasks.registry import TASKS

METRICS = [
    ("classification", ("accuracy", "macro_f1", "mcc")),
    ("multi_label", ("micro_f1", "macro_f1", "subset_accuracy")),
    ("regression", ("pearson", "mse")),
    ("token_classification", ("f1", "precision", "recall", "accuracy")),
    ("question_answering", ("f1", "exact_match")),
    ("causal_lm", ("perplexity",)),
]


def means_of(task, outputs):
    total, count = outputs.sum(axis=0, dtype=np.float64) if task == "causal_lm" else (0.0, 1.0)
    return {"loss": -total / count, "accuracy": 0.0}


@pytest.mark.parametrize(("task", "metrics"), METRICS)
def test_a_score_of_sums_over_rows_is_that_of_the_task(task, metrics):
    outputs, examples = MADE[task]()
    kept = kept_of(task, made=(outputs, examples))
    scores = TASKS[task].scores.compute(means_of(task, outputs), outputs, examples)
    for metric in metrics:
        found = row_sums(kept, metric)
        ones = np.ones((1, found.sums.shape[0]))
        assert found.of(ones)[0] == pytest.approx(scores[metric], abs=1e-6), metric


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc"])
def test_a_row_that_is_drawn_twice_counts_twice(metric):
    outputs, examples = MADE["classification"]()
    found = row_sums(kept_of("classification", made=(outputs, examples)), metric)
    drawn = np.random.default_rng(1).integers(0, 60, 60)
    examples.labels = examples.labels[drawn]
    score = TASKS["classification"].scores.compute({}, outputs[drawn], examples)[metric]
    weights = np.bincount(drawn, minlength=60).astype(float)[None]
    assert found.of(weights)[0] == pytest.approx(score)


def runs(n, seed=0):
    """Two classifiers on the same rows, the second of which is better."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n).astype(np.int32)
    _, examples = MADE["classification"](n)
    examples.labels = labels
    kept = []
    for share in (0.55, 0.75):
        logits = rng.normal(size=(n, 3)).astype(np.float32)
        logits[np.arange(n), labels] += 3 * (rng.random(n) < share)
        kept.append(kept_of("classification", made=(logits, examples)))
    return kept


def test_the_interval_is_that_of_scipy_on_the_hits():
    one, two = runs(200)
    found = difference(row_sums(one, "accuracy"), row_sums(two, "accuracy"))
    hits = [(k.arrays["logits"].argmax(1) == k.arrays["labels"]).astype(float) for k in (one, two)]
    theirs = stats.bootstrap(
        tuple(hits),
        lambda x, y, axis=-1: y.mean(axis=axis) - x.mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(7),
    )
    assert found.value == pytest.approx(hits[1].mean() - hits[0].mean())
    low, high = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)
    assert found.low < found.value < found.high
    assert found.rows == 200


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_p_value_is_that_of_all_exchanges(metric):
    one, two = runs(9, seed=3)
    sums = [row_sums(kept, metric) for kept in (one, two)]
    found = difference(*sums)
    predicted = [kept.arrays["logits"].argmax(1) for kept in (one, two)]
    labels = one.arrays["labels"]

    def score(said):
        if metric == "accuracy":
            return np.mean(said == labels)
        pairs = [(labels == c, said == c) for c in {*labels.tolist(), *said.tolist()}]
        return np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])

    values = []
    for flips in itertools.product((False, True), repeat=9):
        pair = [np.where(flips, *order) for order in (predicted, predicted[::-1])]
        values.append(score(pair[0]) - score(pair[1]))
    own = abs(score(predicted[1]) - score(predicted[0]))
    exact = np.mean(np.abs(values) >= own - 1e-9)
    assert 0.02 < exact < 0.98  # of a p-value that says something
    assert found.p_value == pytest.approx(exact, abs=0.02)


def test_the_p_value_of_means_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 10))
    y += 0.7

    def mean_of(values):
        sums = sparse.csr_array(np.stack([np.ones(10), values], axis=1))
        return RowSums(sums, lambda totals: totals[:, 1] / totals[:, 0])

    theirs = stats.permutation_test(
        (y, x),
        lambda u, v, axis=-1: np.mean(u, axis=axis) - np.mean(v, axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert difference(mean_of(x), mean_of(y)).p_value == pytest.approx(theirs.pvalue, abs=0.02)


def test_a_model_may_say_classes_that_the_other_never_does():
    one, _ = runs(60)
    logits = np.concatenate([one.arrays["logits"], np.full((60, 1), -9, np.float32)], axis=1)
    logits[::7, 3] = 9
    two = one._replace(arrays=dict(one.arrays) | {"logits": logits})
    sums = [row_sums(kept, "macro_f1") for kept in (one, two)]
    found = difference(*sums)
    assert found.scores == pytest.approx([s.of(np.ones((1, 60)))[0] for s in sums])
    assert found.scores[1] < found.scores[0]
    assert found.p_value < 0.05


def test_equal_runs_do_not_differ():
    one, _ = runs(50)
    sums = row_sums(one, "accuracy")
    found = difference(sums, sums)
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_other_labels_are_other_rows():
    one, two = runs(20)
    assert same_rows(one, two)
    labels = one.arrays["labels"].copy()
    labels[3] += 1
    assert not same_rows(one, two._replace(arrays=dict(two.arrays) | {"labels": labels}))
    assert not same_rows(one, two._replace(split="validation"))
