"""Queries and passages: rows of either kind, put together by query, and what is refused."""

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources.memory import from_memory
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.pair_groups import encode
from jaxtune.data.text.ranking_tables import QUERIES, read_new
from jaxtune.settings.data import ColumnSettings, DataSettings
from jaxtune.settings.dicts import from_dict


def read(columns, **fields):
    return QUERIES.rows(from_memory(columns, "rows"), ColumnSettings(**fields), ())


PASSAGES = {
    "query": ["q", "r", "q", "r", "s"],
    "passage": ["a", "b", "c", "d", "e"],
    "label": [0, 2, 1, 0, 0],
}


def test_rows_of_a_query_are_put_together():
    rows = read(PASSAGES)
    assert rows.inputs == [
        (("q", "a"), ("q", "c")),
        (("r", "b"), ("r", "d")),
        (("s", "e"),),
    ]
    assert [label.tolist() for label in rows.labels] == [[0, 1], [2, 0], [0]]
    assert rows.keys == ["q", "r", "s"]
    assert rows.notes[0] == "3 queries with 5 passages, of 5 rows"
    assert rows.notes[1].startswith("1 of 3 queries have no relevant passage")


def test_a_column_may_say_which_rows_are_of_one_query():
    rows = read(PASSAGES | {"id": [1, 1, 2, 2, 2]}, group_column="id")
    assert rows.inputs == [(("q", "a"), ("r", "b")), (("q", "c"), ("r", "d"), ("s", "e"))]
    with pytest.raises(UserError, match="row 2: found nothing in the column 'id'"):
        read(PASSAGES | {"id": [1, None, 2, 2, 2]}, group_column="id")
    with pytest.raises(UserError, match="'qid'"):
        read(PASSAGES, group_column="qid")


def test_positives_and_negatives_are_columns_and_lists():
    columns = {
        "query": ["q", "r", "q"],
        "positive": ["a", ["b", "c"], "d"],
        "negative_1": ["x", None, " "],
        "negatives": [["y", "z"], [], None],
        "label": [5, 5, 5],  # not read beside negatives
    }
    rows = read(columns)
    assert rows.inputs[0] == tuple(("q", text) for text in "axyzd")
    assert [label.tolist() for label in rows.labels] == [[1, 0, 0, 0, 1], [1, 1]]
    named = read(columns, text_columns=("query", "positive", "negative_1", "negatives"))
    assert named.inputs == rows.inputs


def test_lists_of_passages_have_lists_of_labels():
    columns = {
        "query": ["q", "r"],
        "docs": [["a", "b"], np.array(["c"], object)],
        "labels": [[0, 0.5], np.array([1.0])],
    }
    rows = read(columns, text_columns=("query", "docs"), label_column="labels")
    assert rows.inputs == [(("q", "a"), ("q", "b")), (("r", "c"),)]
    assert [label.tolist() for label in rows.labels] == [[0, 0.5], [1]]
    assert QUERIES.has_labels(
        from_memory(columns, "rows"),
        ColumnSettings(text_columns=("query", "docs"), label_column="labels"),
    )


@pytest.mark.parametrize("names", [("query", "document"), ("question", "answer")])
@pytest.mark.parametrize("label", ["label", "score", "relevance"])
def test_columns_are_found_by_their_names(names, label):
    columns = {names[0]: ["q"], names[1]: ["a"], label: [1]}
    assert read(columns).inputs == [(("q", "a"),)]


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"query": ["", *"rqrs"]}, {}, "row 1: found '' in the column 'query'"),
        ({"passage": ["a", None, *"cde"]}, {}, "row 2: found nothing in the column 'passage'"),
        ({"label": [0, -1, 1, 0, 0]}, {}, "row 2: found -1 in the column 'label'"),
        ({"label": [0, "x", 1, 0, 0]}, {}, "row 2: found 'x' in the column 'label'"),
        ({"label": [0, float("nan"), 1, 0, 0]}, {}, "row 2: found nan in the column 'label'"),
        ({"passage": [["a", "b"], *"bcde"]}, {}, "row 1: found 2 passages .* and 1 labels"),
        ({}, {"text_columns": ("query", "query")}, "expected query, passage and label"),
        ({}, {"text_columns": ("query", "text")}, "expected 'text' too"),
        ({}, {"label_column": "grade"}, "expected 'grade' too"),
        ({}, {"text_columns": ("query", "passage", "label")}, "found 0 in the column 'label'"),
    ],
)
def test_what_cannot_be_read_is_refused(changes, fields, message):
    with pytest.raises(UserError, match=message):
        read(PASSAGES | changes, **fields)


def test_something_must_say_what_is_not_relevant():
    rows = {"query": ["q"], "passage": ["a"]}
    with pytest.raises(UserError, match="none that says how relevant the passage is"):
        read(rows, text_columns=("query", "passage"))
    with pytest.raises(UserError, match="expected query, passage and label"):
        read(rows)


def test_a_query_is_on_one_side_of_a_split(tmp_path):
    lines = ["query,passage,label", *(f"q{i % 9},p{i},{i // 9 % 2}" for i in range(36))]
    file = tmp_path / "data.csv"
    file.write_text("\n".join(lines) + "\n")
    settings = from_dict(DataSettings, {"path": str(file), "validation_size": 3.0})
    data = read_data(settings, QUERIES)
    assert [len(rows.inputs) for rows in data.splits.values()] == [6, 3]
    assert all(len(pairs) == 4 for rows in data.splits.values() for pairs in rows.inputs)


def test_labels_that_are_all_0_teach_nothing():
    rows = {"query": [f"q{i // 2}" for i in range(20)], "passage": ["p"] * 20, "label": [0] * 20}
    tables = {"train": from_memory(rows, "train"), "validation": from_memory(rows, "validation")}
    with pytest.raises(UserError, match="no passage of 10 queries is relevant"):
        read_data(from_dict(DataSettings, {"path": "memory"}), QUERIES, tables)


def test_bad_rows_are_left_out_one_by_one(tmp_path):
    lines = ["query,passage,label", *(f"q{i % 9},p{i},{i // 9 % 2}" for i in range(36))]
    lines[3], lines[7] = "q2,,1", "q6,p6,x"
    file = tmp_path / "data.csv"
    file.write_text("\n".join(lines) + "\n")
    fields = {"path": str(file), "validation_size": 3.0, "on_bad_row": "skip"}
    data = read_data(from_dict(DataSettings, fields), QUERIES)
    counts = {pairs[0][0]: len(pairs) for rows in data.splits.values() for pairs in rows.inputs}
    assert counts == {f"q{i}": 3 if i in (2, 6) else 4 for i in range(9)}


def test_pairs_are_tokenized_as_pairs_and_new_ones_one_by_one(minilm):
    from jaxtune.data.text.tokens import load_tokenizer

    tokenizer = load_tokenizer(minilm)
    examples, _ = encode(read(PASSAGES), tokenizer, DataSettings())
    assert examples.groups.offsets.tolist() == [0, 2, 4, 5]
    assert examples.labels.values.tolist() == [0, 1, 2, 0, 0]
    ids, _, offsets, _ = examples.tokens
    wanted = tokenizer.backend_tokenizer.encode("r", "b").ids
    assert ids[offsets[2] : offsets[3]].tolist() == wanted
    table = from_memory({"query": ["r"], "passage": ["b"], "more": [1]}, "rows")
    for columns in ((), ("query", "passage"), ("query", "positive", "negative")):
        new, _ = encode(read_new(table, columns, "utf-8"), tokenizer, DataSettings())
        assert isinstance(new, Examples)
        assert new.tokens.input_ids.tolist() == wanted
    with pytest.raises(UserError, match="text_columns=QUERY,PASSAGE"):
        read_new(from_memory({"a": ["x"], "b": ["y"], "c": ["z"]}, "rows"), (), "utf-8")
