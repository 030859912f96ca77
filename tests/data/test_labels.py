"""Labels, targets and texts: what is taken, what is refused, and with which words."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from jaxtune.core.errors import UserError
from jaxtune.data.sources.table import Table
from jaxtune.data.text.labels import (
    class_labels,
    class_names,
    encode_classes,
    encode_targets,
    has_targets,
    text_rows,
)
from jaxtune.tasks import classification


def table(values, names=(), source="dir/train.csv"):
    """A table with the values in the column `label`, the first of them on line 2."""
    declared = {"label": tuple(names)} if names else {}
    return Table({"label": list(values)}, source, range(2, 2 + len(values)), declared)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([10, 9, 2], ("2", "9", "10")),
        ([1.0, 0.0], ("0", "1")),
        ([1, 1.0, "1", 0], ("0", "1")),
        ([True, False], ("false", "true")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1_0", "9"], ("1_0", "9")),
        (["0.5", "10.5", "9.5"], ("0.5", "10.5", "9.5")),
    ],
)
def test_class_names_of_values(values, expected):
    assert class_names(table(values), "label") == expected
    assert class_names(table(values[::-1]), "label") == expected


def test_declared_names_keep_their_order_even_where_a_class_has_no_row():
    assert class_names(table([1, 0], ["World", "Sports", "Arts"]), "label") == (
        "World",
        "Sports",
        "Arts",
    )


@pytest.mark.parametrize("call", [class_names, lambda t, c: encode_classes(t, c, ("a", "b"))])
@pytest.mark.parametrize(
    ("bad", "shown"),
    [(None, "nothing"), ("", "''"), ("  ", "'  '"), (math.nan, "nan"), (["a"], "['a']")],
)
@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_missing_label(call, bad, shown, names):
    with pytest.raises(UserError) as caught:
        call(table(["a", "b", bad], names), "label")
    for part in ("dir/train.csv line 4", f"found {shown}", "'label'", "config.data.label_column"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("values", "names"), [(["a", "a"], ()), ([0, 0], ("only",)), ([], ())])
def test_fewer_than_two_classes(values, names):
    with pytest.raises(UserError, match=r"dir/train\.csv: found [01] class.*at least 2.*column"):
        class_names(table(values, names), "label")


def test_encode_classes():
    encoded = encode_classes(table(["b", "a", "b"]), "label", ("a", "b"))
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 0.0], [0, 1, 0]), ([True, False], [3, 2]), (["true", 1], [3, 1])],
)
def test_encode_values_that_are_not_strings(values, expected):
    assert encode_classes(table(values), "label", ("0", "1", "false", "true")).tolist() == expected


def test_declared_integers_are_indices_into_the_names_of_their_own_table():
    names = ("World", "Sports", "Arts")
    assert encode_classes(table([2, 0, 1.0], names), "label", names).tolist() == [2, 0, 1]
    # Another file may declare the same classes in another order.
    other = table([0, 1, 2], ("Arts", "Sports", "World"))
    assert encode_classes(other, "label", names).tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("values", "names", "shown"),
    [(["a", "bb"], (), "'bb'"), ([0, -1], ("a", "b"), "'-1'"), ([0, 2], ("a", "b"), "'2'")],
)
def test_unseen_label(values, names, shown):
    with pytest.raises(UserError) as caught:
        encode_classes(table(values, names, "dir/dev.csv"), "label", ("a", "b"))
    parts = ["dir/dev.csv line 3", f"the label {shown}", "'label'", "a, b", "Correct or remove"]
    for part in parts:
        assert part in str(caught.value)


def test_unseen_label_lists_twenty_names_and_the_nearest():
    names = [f"class{i:02}" for i in range(30)]
    with pytest.raises(UserError) as caught:
        encode_classes(table(["class299"]), "label", names)
    text = str(caught.value)
    assert "class19 and 10 more. Nearest: class29" in text
    assert "class20," not in text.split("Nearest")[0]


def test_encode_targets():
    targets = encode_targets(table(["5.000", " -1e-3 ", 2, 0.25]), "label")
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.array([5, -1e-3, 2, 0.25], np.float32))


@pytest.mark.parametrize(
    "bad", ["x", "", None, "nan", math.nan, "inf", -math.inf, 1e39, "1e999", True, "1_0", [1.0]]
)
def test_target_that_is_no_finite_number(bad):
    with pytest.raises(UserError) as caught:
        encode_targets(table([1.0, bad]), "label")
    shown = "nothing" if bad is None else repr(bad)
    for part in ("dir/train.csv line 3", f"found {shown}", "finite number", "label_column"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1, -1], False),
        ([-1.0, None], False),
        (["", " "], False),
        (["-1", "-1.0"], False),
        ([math.nan, None], False),
        ([-1, 0], True),
        (["", "pos"], True),
        ([0.0], True),
        ([False], True),
        ([["a"]], True),
    ],
)
def test_has_targets(values, expected):
    assert has_targets(table(values), "label") is expected
    assert has_targets(table(values), "score") is False


def test_text_rows():
    pairs = Table({"a": ["one ", "two"], "b": ["x", "y"]}, "dir/train.csv", [2, 3], {})
    assert text_rows(pairs, ("a",)) == [("one ",), ("two",)]
    assert text_rows(pairs, ("b", "a")) == [("x", "one "), ("y", "two")]


@pytest.mark.parametrize("bad", [None, "", " \t\n", 3, math.nan, ["a"]])
def test_text_that_is_none(bad):
    pairs = Table({"a": ["one", "two"], "b": ["x", bad]}, "dir/train.csv", [2, 7], {})
    with pytest.raises(UserError) as caught:
        text_rows(pairs, ("a", "b"))
    shown = "nothing" if bad is None else repr(bad)
    for part in ("dir/train.csv line 7", f"found {shown}", "'b'", "config.data.text_columns"):
        assert part in str(caught.value)


@pytest.mark.parametrize("columns", [(), ("label",) * 3])
def test_number_of_text_columns(columns):
    with pytest.raises(UserError, match=r"text_columns: found [03] columns.*expected one, or two"):
        text_rows(table(["a"]), columns)


@pytest.mark.parametrize(
    "call",
    [
        class_names,
        encode_targets,
        lambda t, c: encode_classes(t, c, ("a", "b")),
        lambda t, c: text_rows(t, (c,)),
    ],
)
def test_column_that_is_not_there(call):
    with pytest.raises(UserError, match=r"dir/train\.csv.*'label'.*'labels'.*Nearest: label\."):
        call(table(["a"]), "labels")


# --- Labels as people write them ----------------------------------------------------------------


def test_white_space_around_a_label_makes_no_class_and_is_counted():
    found = table(["pos", " pos", "neg\t", "\u00a0neg", "neg"])
    assert class_names(found, "label") == ("neg", "pos")
    labels = class_labels(found, "label", ("neg", "pos"))
    assert labels.indices.tolist() == [1, 1, 0, 0, 0]
    assert labels.notes == ("3 labels had white space around them, which was taken off",)


def test_a_class_that_training_lacks_is_refused_with_its_count_and_the_setting():
    found = table(["a", "meal", "b", "day", "meal"], source="dir/test.csv")
    with pytest.raises(UserError) as caught:
        class_labels(found, "label", ("a", "b"))
    for part in ("dir/test.csv line 3", "3 of 5", "'meal' 2, 'day' 1", "on_unknown_class=wrong"):
        assert part in str(caught.value)


def test_a_class_that_training_lacks_is_scored_as_scikit_learn_scores_it():
    found = table(["a", "meal", "b", "day", "b"])
    labels = class_labels(found, "label", ("a", "b"), "wrong")
    assert labels.names == ("a", "b", "meal", "day")
    assert labels.indices.tolist() == [0, 2, 1, 3, 1]
    assert "2 of 5" in labels.notes[0]
    predicted = ["a", "b", "b", "a", "b"]
    logits = np.array([[1.0, 0.0] if name == "a" else [0.0, 1.0] for name in predicted], np.float32)
    right = found.columns["label"]
    scores = classification.scores({}, logits, SimpleNamespace(labels=labels.indices))
    assert scores == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(right, predicted),
            "macro_f1": metrics.f1_score(right, predicted, average="macro"),
            "mcc": metrics.matthews_corrcoef(right, predicted),
        }
    )
    batch = {"labels": labels.indices, "weight": np.array([1, 1, 1, 1, 0], np.float32)}
    means = classification.class_metrics(logits, batch)
    assert (float(means["accuracy"].total), float(means["accuracy"].weight)) == (2, 4)
    known = {"labels": labels.indices[[0, 2]], "weight": np.ones(2, np.float32)}
    expected = classification.cross_entropy(logits[[0, 2]], known)
    np.testing.assert_allclose(means["loss"], expected, rtol=1e-6)
    order = np.array([1, 0], np.int32)
    assert classification.reorder(labels.indices, order).tolist() == [1, 2, 0, 3, 0]


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), [2, "0", 1.0]),
        (("0", "1", "2"), ["LABEL_2", "LABEL_0", "LABEL_1"]),
    ],
)
def test_numbers_are_the_classes_of_a_model_that_only_numbers_them(names, values):
    assert encode_classes(table(values), "label", names).tolist() == [2, 0, 1]


def test_measured_numbers_are_no_classes():
    with pytest.raises(UserError, match=r"dir/train\.csv.*40 different.*'label'.*task=regression"):
        class_names(table([f"{i * 0.37:.2f}" for i in range(40)]), "label")
    ratings = [i / 2 for i in range(10)] * 4
    assert len(class_names(table(ratings), "label")) == 10
