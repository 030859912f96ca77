"""What can hardly be meant is said, with counts; what is usual is not."""

import numpy as np
import pytest

from jaxtune.data.text import doubts


def of(counts):
    return doubts.of_classes([*counts], np.array([*counts.values()]))


def test_classes_of_few_rows_are_named_with_their_counts():
    assert of({"money": 40, "sport": 39}) == []
    (note,) = of({"money": 40, "sport": 39, "sprot": 1, "new": 4})
    assert note.startswith("2 of 4 classes have fewer than 5 rows in train: sprot (1), new (4);")
    (note,) = of({f"c{i:02}": 1 for i in range(30)})
    assert "30 of 30" in note
    assert note.count("(1)") == 5
    assert "and 25 more" in note


@pytest.mark.parametrize(
    "names",
    [["Pos", "pos"], ["e\u0301t\u00e9", "\u00e9te\u0301"], ["a b", "a  b"], ["a", "a\u200b"]],
)
def test_classes_of_like_spelling(names):
    (note,) = of(dict.fromkeys([*names, "other"], 9))
    assert "case or spacing" in note
    assert all(repr(name) in note for name in names)


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["0", "1,4", "2", "0,3", "3,4", "1", "4"], 3),
        (["a;b", "b; c", "c;a"], 3),
        (["World", "Sports", "Business", "Sci/Tech"], 0),
        (["Rome, Italy", "Paris, France"], 0),
    ],
)
def test_classes_that_look_joined(names, count):
    notes = of(dict.fromkeys(names, 9))
    assert len(notes) == bool(count)
    assert all(f"{count} of {len(names)} classes look like several" in note for note in notes)


def test_classes_that_are_measures():
    (note,) = of({"0.5": 9, "1.0": 9})
    assert "config.task=regression" in note
    assert of({"0": 9, "1": 9}) == []


def test_columns_of_numbers():
    rows = [(f"text {i}", str(i / 7)) for i in range(5000)]
    (note,) = doubts.of_texts(rows)
    assert note.startswith("1000 of 1000 texts in column 2 of config.data.text_columns are numbers")
    assert doubts.of_texts([("12",), ("a",), ("b 1",)]) == []
