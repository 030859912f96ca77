"""Prompts with choices: SWAG's, HellaSwag's and ARC's columns, plain ones, and what is refused."""

import json

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources.memory import from_memory
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text.choice_tables import CHOICES, read_new
from jaxtune.data.text.pair_groups import encode
from jaxtune.settings.data import ColumnSettings, DataSettings
from jaxtune.settings.dicts import from_dict


def read(columns, **fields):
    return CHOICES.rows(from_memory(columns, "rows"), ColumnSettings(**fields), ())


def rights(rows):
    assert all(label.sum() == 1 for label in rows.labels)
    return [int(label.argmax()) for label in rows.labels]


SWAG = {
    "sent1": ["He runs.", "She sits."],
    "sent2": ["He", "She"],
    **{f"ending{k}": [f"ends {k}", f"goes {k}"] for k in range(4)},
    "label": [3, 0],
}


def test_swags_columns_are_found():
    rows = read(SWAG)
    assert rows.inputs[0] == tuple(("He runs.", f"He ends {k}") for k in range(4))
    assert rows.inputs[1] == tuple(("She sits.", f"She goes {k}") for k in range(4))
    assert rights(rows) == [3, 0]
    assert rows.notes == ()
    named = ("sent1", *(f"sent2+ending{k}" for k in range(4)))
    assert read(SWAG, text_columns=named).inputs == rows.inputs
    without = read(SWAG | {"label": [1, 0]}, text_columns=("sent1", "ending0", "ending3"))
    assert without.inputs[0] == (("He runs.", "ends 0"), ("He runs.", "ends 3"))


def test_a_name_with_a_plus_in_it_is_a_column_where_there_is_one():
    rows = read(
        {"question": ["q"], "a+b": ["one"], "c": ["two"], "label": [1]},
        text_columns=("question", "a+b", "c"),
    )
    assert rows.inputs == [(("q", "one"), ("q", "two"))]


def test_lists_of_any_length_and_hellaswags_beginnings():
    rows = read(
        {
            "ctx_a": ["A man", "A dog"],
            "ctx_b": ["he", ""],
            "endings": [["runs", "sits"], json.dumps(["barks", "is", "was"])],
            "label": ["1", "2"],
        }
    )
    assert rows.inputs[0] == (("A man", "he runs"), ("A man", "he sits"))
    assert rows.inputs[1] == tuple(("A dog", text) for text in ("barks", "is", "was"))
    assert rights(rows) == [1, 2]
    assert rows.notes == ("the rows have from 2 to 3 choices",)


@pytest.mark.parametrize(("label", "place"), [("B", 1), ("3", 2), ("A", 0)])
def test_labels_of_arc_are_those_of_its_choices(label, place):
    own = ["1", "2", "3"] if label == "3" else ["A", "B", "C"]
    choices = {"text": np.array(["x", "y", "z"]), "label": np.array(own)}
    rows = read({"question": ["q"], "choices": [choices], "label": [label]})
    assert rights(rows) == [place]


@pytest.mark.parametrize(
    ("label", "place"), [(2, 1), ("2", 1), (2.0, 1), ("C", 1), ("option_c", 1)]
)
def test_a_choice_that_a_row_lacks_keeps_its_number(label, place):
    rows = read(
        {
            "question": ["q"],
            "option_a": ["x"],
            "option_b": [" "],
            "option_c": ["z"],
            "label": [label],
        }
    )
    assert rows.inputs == [(("q", "x"), ("q", "z"))]
    assert rights(rows) == [place]


PLAIN = {"question": ["q", "r"], "choices": [["a", "b"], ["c", "d"]], "label": [0, 1]}


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"question": ["q", " "]}, {}, "row 2: found ' ' in the column 'question'"),
        ({"choices": [["a", "b"], ["c"]]}, {}, "row 2: found 1 choices, but expected two"),
        ({"choices": [["a", 3], ["c", "d"]]}, {}, r"row 1: found \['a', 3\]"),
        ({"label": [0, 2]}, {}, "row 2: found 2 in the column 'label'.*from 0 to 1"),
        ({"label": [None, 1]}, {}, "row 1: found nothing in the column 'label'"),
        ({"label": ["", "b"]}, {}, "row 1: found '' in the column 'label'"),
        ({}, {"text_columns": ("text", "more")}, "expected 'text', 'more' too"),
        ({}, {"text_columns": ("question",)}, "expected a prompt and its choices"),
        ({}, {"text_columns": ("question", "begin+choices")}, "expected 'begin' too"),
        ({}, {"label_column": "answer"}, "'answer'"),
        ({"begin": [1, "x"]}, {"text_columns": ("question", "begin+choices")}, "row 1: found 1"),
    ],
)
def test_what_cannot_be_read_is_refused(changes, fields, message):
    with pytest.raises(UserError, match=message):
        read(PLAIN | changes, **fields)


def test_other_columns_are_named():
    with pytest.raises(UserError, match="found the columns 'text', 'label', but expected a prompt"):
        read({"text": ["a"], "label": [0]})


def test_csv_is_read_and_its_rows_held_out_whole(tmp_path):
    lines = ["question,choice1,choice2,choice3,label"]
    lines += [f"q{i},a{i},b{i},{'c' if i % 2 else ''},choice{1 + i % 2}" for i in range(12)]
    file = tmp_path / "data.csv"
    file.write_text("\n".join(lines) + "\n")
    settings = from_dict(DataSettings, {"path": str(file), "validation_size": 4.0})
    data = read_data(settings, CHOICES)
    assert {split: len(rows.inputs) for split, rows in data.splits.items()} == {
        **{"train": 8, "validation": 4}
    }
    for rows in data.splits.values():
        for pairs, label in zip(rows.inputs, rows.labels, strict=True):
            number = int(pairs[0][0][1:])
            assert len(pairs) == len(label) == 2 + number % 2
            assert label.argmax() == number % 2


def test_pairs_are_tokenized_as_pairs(minilm):
    from jaxtune.data.text.tokens import load_tokenizer

    tokenizer = load_tokenizer(minilm)
    examples, notes = encode(read(SWAG), tokenizer, DataSettings())
    assert notes == []
    assert examples.groups.offsets.tolist() == [0, 4, 8]
    assert examples.labels.values.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    wanted = tokenizer.backend_tokenizer.encode("He runs.", "He ends 1")
    ids, types, offsets, _ = examples.tokens
    assert ids[offsets[1] : offsets[2]].tolist() == wanted.ids
    assert types[offsets[1] : offsets[2]].tolist() == wanted.type_ids
    assert examples.info[5] == "She goes 1"


def test_new_rows_need_no_label_and_a_bad_one_has_a_reason():
    columns = {"question": ["q", None, "r"], "choices": [["a", "b"], ["c", "d"], ["e"]]}
    rows = read_new(from_memory(columns, "rows"), (), "utf-8")
    assert rows.inputs[0] == (("q", "a"), ("q", "b"))
    assert rows.labels is None
    assert rows.reasons[0] == ""
    assert "the column 'question' is empty" in rows.reasons[1]
    assert "found 1 choices" in rows.reasons[2]
    with pytest.raises(UserError, match="none of 1 rows can be read"):
        read_new(from_memory({"question": ["q"], "choices": [["a"]]}, "rows"), (), "utf-8")
