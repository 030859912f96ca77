"""Lists of classes: by name, joined in one field, as flags, multi-hot; and what is asked about."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics
from sklearn.preprocessing import MultiLabelBinarizer

from jaxtune.core.errors import UserError
from jaxtune.data.sources import class_sets
from jaxtune.data.sources.rows import read_data
from jaxtune.data.sources.table import Table
from jaxtune.data.text import label_sets, text_tables, tokens
from jaxtune.data.text.examples import Examples
from jaxtune.settings.data import ColumnSettings, DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks import multi_label

HOT = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]]


def table(values, names=(), source="dir/train.jsonl"):
    declared = {"label": tuple(names)} if names else {}
    columns = {"text": [f"text {i}" for i in range(len(values))], "label": list(values)}
    return Table(columns, source, range(1, 1 + len(values)), declared)


def encoded(values, names=(), **columns):
    """(classes, flags) of a training table."""
    settings = ColumnSettings(**columns)
    read = label_sets.read_sets({"train": table(values, names)}, settings)["train"]
    known = label_sets.set_names(read, "label")
    return known, label_sets.encode_sets(read, "label", known).sets.flags().tolist()


@pytest.mark.parametrize(
    "form",
    [list, json.dumps, lambda row: [float(v) for v in row], lambda row: list(map(bool, row)),
     lambda row: "|".join(map(str, row))],
    ids=["ints", "json", "floats", "bools", "joined"],
)  # fmt: skip
def test_multi_hot_rows_are_multi_hot(form):
    assert encoded([form(row) for row in HOT]) == (("0", "1", "2"), HOT)
    assert encoded([form(row) for row in HOT], "abc") == (("a", "b", "c"), HOT)


def test_multi_hot_rows_of_a_parquet_file(tmp_path):
    pytest.importorskip("datasets").Dataset.from_dict(
        {"text": [f"text {i}" for i in range(40)], "label": [HOT[i % 5] for i in range(40)]}
    ).to_parquet(tmp_path / "train.parquet")
    settings = from_dict(DataSettings, {"path": str(tmp_path / "train.parquet")})
    data = read_data(settings, text_tables.CLASS_SETS)
    assert data.class_names == ("0", "1", "2")
    for rows in data.splits.values():
        assert rows.labels.flags().tolist() == [HOT[int(text[5:]) % 5] for (text,) in rows.inputs]


@pytest.mark.parametrize(
    "values",
    [
        [["news", "sport"], [], ["sport"], None],
        [["news", "sport"], float("nan"), ["sport"], ""],
        ['["news", "sport"]', "[]", '["sport"]', None],
        ["news|sport", "", "sport", None],
        [" news | sport ", None, "sport ", "  "],
    ],
)
def test_lists_of_names_and_rows_without_a_class(values):
    expected = MultiLabelBinarizer().fit_transform([["news", "sport"], [], ["sport"], []])
    assert encoded(values) == (("news", "sport"), expected.tolist())


@pytest.mark.parametrize("separator", [",", ";", " ", " / "])
def test_a_separator_of_ones_own(separator):
    rows = [["1", "10"], ["4"], ["4", "1"]]
    values = [separator.join(row) for row in rows]
    expected = MultiLabelBinarizer(classes=["1", "4", "10"]).fit_transform(rows).tolist()
    assert encoded(values, label_separator=separator) == (("1", "4", "10"), expected)


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([[0], [0, 1], []], (), [[1, 0], [1, 1], [0, 0]]),  # of different lengths: names
        ([[0], [1], [0]], ("a", "b"), [[1, 0], [0, 1], [1, 0]]),  # indices into declared names
        ([[0, 1], [1, 0]], ("a", "b", "c"), [[1, 1, 0], [1, 1, 0]]),
    ],
)
def test_lists_of_0_and_1_that_name_classes(values, names, expected):
    assert encoded(values, names)[1] == expected


@pytest.mark.parametrize(
    ("values", "names"),
    [([[0, 1], [1, 0]], ()), ([[0], [1]], ()), ([[0, 0, 1], [1, 0]], ()), ([[0, 1]], ("a", "b"))],
)
def test_lists_that_may_be_either_are_asked_about(values, names):
    with pytest.raises(UserError) as caught:
        encoded(values, names)
    parts = ("dir/train.jsonl line", "label_lists=multi_hot", "label_lists=names")
    assert all(part in str(caught.value) for part in parts)
    assert encoded(values, names, label_lists="names")[1]
    if len({*map(len, values)}) == 1:
        assert encoded(values, names, label_lists="multi_hot")[1] == values


def test_multi_hot_rows_of_other_lengths_are_refused():
    with pytest.raises(UserError, match=r"line 3: found \[1, 0\].*is multi_hot"):
        encoded([[0, 0, 1], [1, 0, 0], [1, 0]], label_lists="multi_hot")


@pytest.mark.parametrize("bad", [3, [["a"]], ["a", ""], "a||b", "[1,", [0.5, 0.5], {"a": 1}])
def test_a_value_that_is_no_list_of_classes(bad):
    with pytest.raises(UserError, match=r"dir/train\.jsonl line 2: found .*'label'.*expected"):
        encoded([["a"], bad])


def test_all_splits_are_read_alike(tmp_path):
    for split, rows in (("train", HOT * 3), ("test", [[0, 1, 0], [0, 0, 1]])):
        lines = [json.dumps({"text": f"{split} {i}", "label": r}) for i, r in enumerate(rows)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    settings = from_dict(DataSettings, {"path": str(tmp_path)})
    data = read_data(settings, text_tables.CLASS_SETS)
    assert data.splits["test"].labels.flags().tolist() == [[0, 1, 0], [0, 0, 1]]


def test_a_class_that_training_lacks_is_scored_as_scikit_learn_scores_it():
    rows = [["a"], ["a", "x"], [], ["y", "b"]]
    columns = ColumnSettings(on_unknown_class="wrong")
    read = label_sets.read_sets({"test": table(rows)}, columns)["test"]
    with pytest.raises(UserError, match=r"line 2: found the label 'x'.*2 of 5 labels.*unknown_cla"):
        label_sets.encode_sets(read, "label", ("a", "b"))
    found = label_sets.encode_sets(read, "label", ("a", "b"), columns.on_unknown_class)
    assert found.names == ("a", "b", "x", "y")
    logits = np.array([[2, -1], [3, -1], [-2, 1], [-1, 4]], np.float32)
    scores = multi_label.scores({}, logits, SimpleNamespace(labels=found.sets))
    binarizer = MultiLabelBinarizer(classes=list(found.names))
    right = binarizer.fit_transform(rows)
    guess = binarizer.transform([["a"], ["a"], ["b"], ["b"]])
    assert scores == pytest.approx(
        {
            "micro_f1": metrics.f1_score(right, guess, average="micro", zero_division=0),
            "macro_f1": metrics.f1_score(right, guess, average="macro", zero_division=0),
            "subset_accuracy": metrics.accuracy_score(right, guess),
        }
    )
    batch = {"labels": found.sets.flags()}
    known = {"labels": found.sets.flags()[:, :2]}
    assert multi_label.batch_metrics(logits, batch) == multi_label.batch_metrics(logits, known)
    reordered = multi_label.reorder(found.sets, np.array([1, 0]))
    assert reordered.flags().tolist() == found.sets.flags()[:, [1, 0, 2, 3]].tolist()


def test_the_classes_of_a_model_have_a_column_each():
    read = label_sets.read_sets({"test": table([["b"], []])}, ColumnSettings())["test"]
    assert label_sets.encode_sets(read, "label", ("b", "c", "a")).sets.flags().tolist() == [
        [1, 0, 0],
        [0, 0, 0],
    ]
    hot = label_sets.read_sets({"test": table(HOT)}, ColumnSettings())["test"]
    assert (
        label_sets.encode_sets(hot, "label", ("bus", "ship", "tram")).sets.flags().tolist() == HOT
    )
    flags = Table({"b": ["1", "false"], "a": [0, True]}, "x.csv", [2, 3], {})
    assert label_sets.encode_columns(flags, ("b", "a"), ("a", "b", "c")).flags().tolist() == [
        [0, 1, 0],
        [1, 0, 0],
    ]
    with pytest.raises(UserError, match=r"label_columns has 'b', but the model's classes are a, c"):
        label_sets.encode_columns(flags, ("b", "a"), ("a", "c"))


def test_class_sets_are_what_a_matrix_says():
    rng = np.random.default_rng(0)
    flags = (rng.random((20, 7)) < 0.2).astype(np.float32)
    sets = class_sets.of_flags(flags)
    assert class_sets.of_flags(sets) is sets
    rows = rng.integers(0, 20, 9)
    assert sets.flags().tolist() == flags.tolist()
    assert sets.flags(rows).tolist() == sets.take(rows).flags().tolist() == flags[rows].tolist()
    assert sets.counts.tolist() == flags.sum(axis=0).tolist()
    order = rng.permutation(5)
    expected = np.concatenate([flags[:, np.argsort(order)], flags[:, 5:]], axis=1)
    assert multi_label.reorder(sets, order).flags().tolist() == expected.tolist()


def test_many_classes_take_a_batch_and_no_matrix_of_all_rows():
    n, c = 3000, 20_000
    lists = np.random.default_rng(0).integers(0, c, (n, 2)).astype(str).tolist()
    rows, names = table([*map(tuple, lists)]), tuple(map(str, range(c)))
    tracemalloc.start()
    found = label_sets.encode_sets(rows, "label", names)
    examples = Examples(tokens.join([[1]] * n, None, 0), found.sets)
    batch = examples.collate_labels(np.arange(8), 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batch["labels"].shape == (8, c)
    for row, own in zip(batch["labels"], lists, strict=False):
        assert {names[i] for i in np.flatnonzero(row)} == {*own}
    assert peak < n * c * 4 / 10
