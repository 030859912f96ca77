"""The numbers of a report against scipy, scikit-learn, seqeval and plain loops in float64."""

import itertools

import numpy as np
import pytest
from finished_runs import MADE, TAGS, kept_of
from scipy import special, stats

from jaxtune.reporting import calibrated, slices, thresholds
from jaxtune.reporting.calibrated import reliability
from jaxtune.reporting.class_rows import class_rows
from jaxtune.reporting.class_tables import confusion, single_scores
from jaxtune.reporting.intervals import wilson
from jaxtune.reporting.tagging import entity_scores
from jaxtune.tasks.calibration import expected_calibration_error
from jaxtune.tasks.outcomes import classes


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (5, 5), (1, 3), (77, 100), (9120, 10000)])
def test_the_interval_of_wilson_is_that_of_scipy(hits, count):
    theirs = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson(hits, count), (theirs.low, theirs.high), atol=1e-12)


def test_the_scores_of_classes_are_those_of_scikit_learn():
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 200), rng.integers(0, 4, 200)
    theirs = precision_recall_fscore_support(
        labels, predicted, labels=range(6), average=None, zero_division=0
    )
    np.testing.assert_allclose(np.array(single_scores(labels, predicted, 6)), np.array(theirs))
    matrix = confusion_matrix(labels, predicted, labels=range(6))
    _, notes, pairs = confusion(labels, predicted, [str(i) for i in range(6)])
    assert not notes
    for right, said, count in pairs.rows:
        assert matrix[int(right), int(said)] == int(count)
    wrong = np.sort(matrix[~np.eye(6, dtype=bool)])[::-1]
    assert [int(count) for *_, count in pairs.rows] == wrong[: len(pairs.rows)].tolist()


def test_of_many_classes_the_matrix_has_those_that_are_confused_most():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 200, 5000)
    predicted = labels.copy()
    predicted[labels == 7] = 150
    _, notes, pairs = confusion(labels, predicted, [str(i) for i in range(200)])
    assert "20 of 200 classes" in notes[0]
    assert pairs.rows == [("7", "150", str(np.count_nonzero(labels == 7)))]


def test_the_calibration_error_is_that_of_a_loop():
    kept = kept_of("classification")
    rows = class_rows(kept, ["a", "b", "c"])
    logits, labels = kept.arrays["logits"].astype(np.float64), kept.arrays["labels"]
    for temperature in (1.0, 2.5):
        found = rows.probabilities(temperature)
        np.testing.assert_allclose(found, special.softmax(logits / temperature, axis=1), atol=1e-6)
        error = 0.0
        for b in range(15):
            inside = (found.max(1) > b / 15) & (found.max(1) <= (b + 1) / 15)
            if inside.any():
                right = (found.argmax(1) == labels)[inside].mean()
                error += inside.mean() * abs(right - found.max(1)[inside].mean())
        assert expected_calibration_error(found, labels, 15) == pytest.approx(error, abs=1e-12)
        bins = reliability(found.max(1), found.argmax(1) == labels)
        told = calibrated.section(rows, temperature, "test").tables[0].rows
        assert told[-1][1:3] == (f"{error:.4f}", f"{found.max(1).mean():.4f}")
        gaps = np.abs(bins.accuracy - bins.confidence) * bins.counts / bins.counts.sum()
        assert gaps.sum() == pytest.approx(error, abs=1e-12)


def test_the_curves_of_thresholds_are_those_of_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    logits, examples = MADE["multi_label"](200, 4)
    kept = kept_of("multi_label", made=(logits, examples))
    flags, probabilities = examples.labels.flags() > 0.5, special.expit(logits.astype(np.float64))
    own = special.expit(kept.arrays["label_logits"].astype(np.float64))
    curve = thresholds.curve(own, probabilities.ravel(), int(flags.sum()))
    for place in (10, 49, 90):
        said = probabilities > thresholds.STEPS[place]
        theirs = precision_recall_fscore_support(flags, said, average="micro", zero_division=0)
        np.testing.assert_allclose([part[place] for part in curve], theirs[:3], atol=1e-12)
    rows = thresholds.of_sets(kept, list("abcd")).tables[0].rows
    f1 = precision_recall_fscore_support(flags, logits > 0, average=None)[2]
    assert {name: half for name, half, *_ in rows[1:]} == {
        name: f"{value:.3f}" for name, value in zip("abcd", f1, strict=True)
    }


def test_the_curve_of_no_answer_is_that_of_a_loop():
    arrays = kept_of("question_answering").arrays
    at, f1, _ = thresholds.no_answer_curve(arrays)
    for place in (0, 57, 120, 200):
        scores = [
            arrays["span_f1"][i] if arrays["margins"][i] <= at[place] else arrays["none_f1"][i]
            for i in range(len(arrays["f1"]))
        ]
        assert f1[place] == pytest.approx(np.mean(scores))
    assert len({*f1.round(6)}) > 3
    near = np.argmin(np.abs(at))  # the answers that were given have the threshold 0
    assert f1[near] == pytest.approx(arrays["f1"].mean(), abs=0.1)


def test_the_scores_of_entities_are_those_of_seqeval():
    from seqeval.metrics import classification_report

    outputs, examples = MADE["token_classification"]()
    kept = kept_of("token_classification", made=(outputs, examples))
    right = [[TAGS[c] for c in row.tags.classes] for row in examples.info]
    said = [
        [TAGS[int(logits[t].argmax())] if t >= 0 else "O" for t in row.tokens]
        for logits, row in zip(outputs, examples.info, strict=True)
    ]
    theirs = classification_report(right, said, output_dict=True, zero_division=0)
    types, scores = entity_scores(kept.arrays, kept.names)
    assert types == ["person", "place"]
    for i, kind in enumerate(types):
        found = [float(part[i]) for part in scores]
        names = ("precision", "recall", "f1-score", "support")
        assert found == pytest.approx([theirs[kind][name] for name in names])


def test_each_row_is_in_one_part_by_length_and_by_value():
    kept = kept_of("classification")
    for parts in (
        slices.by_length(kept),
        slices.by_value(np.random.default_rng(0).normal(size=60).tolist()),
        slices.by_value([f"value {i % 40}" for i in range(60)]),
        slices.by_value(["x", None, 3] * 20),
    ):
        rows = np.concatenate([part for _, part in parts])
        assert sorted(rows.tolist()) == list(range(60))
        assert len({label for label, _ in parts}) == len(parts)
    lengths = kept.arrays["lengths"]
    quarters = slices.by_length(kept)
    assert len(quarters) == 4
    assert all(10 <= len(rows) <= 20 for _, rows in quarters)
    for (_, low), (_, high) in itertools.pairwise(quarters):
        assert lengths[low].max() < lengths[high].min()


def test_of_very_many_classes_the_largest_logits_are_kept(monkeypatch):
    outputs, examples = MADE["classification"](50, 400)
    whole = classes.of_single(outputs, examples)
    monkeypatch.setattr(classes, "MOST", 1000)  # of 20,000
    few = classes.of_single(outputs, examples)
    assert few.arrays["logits"].shape == (50, 20)
    assert sum(part.nbytes for part in few.arrays.values()) < 0.2 * outputs.nbytes
    np.testing.assert_array_equal(few.badness, whole.badness)
    order = np.argsort(-outputs, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(few.arrays["classes"], order)
    names = [str(i) for i in range(400)]
    rows = class_rows(kept_of("classification", made=(outputs, examples)), names)
    probabilities = special.softmax(outputs.astype(np.float64), axis=1)
    np.testing.assert_allclose(
        rows.probabilities(), np.take_along_axis(probabilities, order, axis=1), rtol=1e-5
    )
    error = expected_calibration_error(probabilities, examples.labels, 15)
    found = expected_calibration_error(rows.probabilities(), rows.columns, 15)
    assert found == pytest.approx(error, abs=1e-9)
    np.testing.assert_array_equal(rows.predicted, outputs.argmax(1))


def test_a_class_that_the_model_does_not_have_is_never_right():
    outputs, examples = MADE["classification"]()
    examples.labels[:5] = 3
    kept = kept_of("classification", made=(outputs, examples))
    rows = class_rows(kept, ["a", "b", "c"])
    assert (rows.labels != rows.predicted)[:5].all()
    assert np.isnan(kept.arrays["label_logits"][:5]).all()
    right = (outputs.argmax(1) == examples.labels).mean()
    assert (rows.predicted == rows.labels).mean() == right
