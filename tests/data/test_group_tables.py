"""Rows as groups of texts: columns, lists of negatives, scores, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources.memory import from_memory
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.group_tables import GROUPS, encode, read_new
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict

TEXTS = [f"text {i}" for i in range(12)]


def read(rows, **fields):
    settings = from_dict(DataSettings, {"validation_size": 2.0} | fields)
    held = {name: values[:2] for name, values in rows.items()}
    tables = {"train": from_memory(rows, "train"), "validation": from_memory(held, "validation")}
    return read_data(settings, GROUPS, tables).splits["train"]


@pytest.mark.parametrize(
    "names",
    [
        ("anchor", "positive"),
        ("sentence1", "sentence2"),
        ("query", "answer"),
        ("question", "answer"),
    ],
)
def test_columns_are_found_by_their_names(names):
    rows = read({"id": [*range(6)], names[1]: TEXTS[6:], names[0]: TEXTS[:6]})
    assert rows.inputs == [*zip(TEXTS[:6], TEXTS[6:], strict=True)]
    assert rows.labels is None


def test_named_columns_are_read_in_their_order():
    rows = read(
        {"b": TEXTS[6:], "a": TEXTS[:6], "c": TEXTS[:6][::-1]}, text_columns=("a", "b", "c")
    )
    assert rows.inputs[0] == ("text 0", "text 6", "text 5")


@pytest.mark.parametrize("name", ["score", "label", "similarity_score"])
def test_a_score_is_read_beside_two_texts(name):
    rows = read({"sentence1": TEXTS[:6], "sentence2": TEXTS[6:], name: ["4.5", 0, 1, 2, 3, 5.0]})
    assert rows.labels.tolist() == [4.5, 0, 1, 2, 3, 5]
    assert rows.labels.dtype == np.float32


def test_a_named_score_goes_before_others():
    given = {"sentence1": TEXTS[:6], "sentence2": TEXTS[6:], "score": [9] * 6, "mine": [*range(6)]}
    assert read(given, label_column="mine").labels.tolist() == [*range(6)]
    with pytest.raises(UserError, match="'nine'"):
        read(given, label_column="nine")


def test_negatives_are_columns_and_lists():
    rows = read(
        {
            "anchor": TEXTS[:4],
            "positive": TEXTS[4:8],
            "negative_1": ["n1", None, " ", "n4"],
            "negatives": [["x", "y"], "[1]", "[]", json.dumps(["p", "q"])],
            "score": [1, 2, 3, 4],  # not read beside negatives
        }
    )
    assert [row[2:] for row in rows.inputs] == [*[("n1", "x", "y"), ("[1]",), (), ("n4", "p", "q")]]
    assert rows.labels is None


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_files_of_each_kind_are_read(kind, tmp_path):
    columns = {"anchor": TEXTS[:5], "positive": TEXTS[5:10], "negatives": [["a b"], [], ["c", "d"]]}
    columns["negatives"] += [[], ["e"]]
    file = tmp_path / f"train.{kind}"
    write(kind, file, columns)
    settings = from_dict(DataSettings, {"path": str(file), "validation_size": 1.0})
    rows = read_data(settings, GROUPS).splits
    found = {row[0]: row for split in rows.values() for row in split.inputs}
    wanted = [(a, p, *n) for a, p, n in zip(*columns.values(), strict=True)]
    assert found == {row[0]: row for row in wanted}


def write(kind, file: Path, columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        import csv

        with file.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            writer.writerows([*[*row.values()][:2], json.dumps(row["negatives"])] for row in rows)
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.table(columns), file)


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ({"text": TEXTS}, {}, "expected anchor, positive or sentence1, sentence2"),
        ({"anchor": TEXTS[:6], "positive": ["", *TEXTS[:5]]}, {}, "row 1: found '' in the column"),
        ({"anchor": TEXTS[:6], "positive": TEXTS[:6]}, {"text_columns": ("anchor",)}, "at least"),
        (
            {"anchor": TEXTS[:6], "positive": TEXTS[:6]},
            {"text_columns": ("anchor", "anchor")},
            "each column once",
        ),
        ({"anchor": TEXTS[:6], "positive": TEXTS[:6]}, {"text_columns": ("anchor", "q")}, "'q'"),
        (
            {"anchor": TEXTS[:3], "positive": TEXTS[:3], "negative": [["a"], ["b", 3], ["c"]]},
            {},
            r"row 2: found \['b', 3\] in the column 'negative'",
        ),
        (
            {"anchor": TEXTS[:3], "positive": TEXTS[:3], "negative": ["a", '["b", 3]', "c"]},
            {},
            r"row 2: found .* in the column 'negative'",
        ),
        (
            {"anchor": TEXTS[:3], "positive": TEXTS[:3], "negative": ["a", "b", 3.5]},
            {},
            r"row 3: found 3.5 in the column 'negative'",
        ),
        (
            {"sentence1": TEXTS[:3], "sentence2": TEXTS[:3], "score": [1, "much", 2]},
            {},
            "row 2: found 'much' in the column 'score'",
        ),
    ],
)
def test_bad_rows_are_refused(rows, fields, message):
    with pytest.raises(UserError, match=message):
        read(rows, **fields)


def test_texts_are_tokenized_by_themselves_behind_their_prompts(minilm):
    from jaxtune.data.text.tokens import load_tokenizer

    tokenizer = load_tokenizer(minilm)
    fields = {"query_prompt": "query: ", "document_prompt": "doc: ", "max_length": 20}
    settings = from_dict(DataSettings, fields)
    rows = read({"anchor": TEXTS[:3], "positive": TEXTS[3:6], "negative": ["x", None, "z"]})
    examples, _ = encode(rows, tokenizer, settings)
    assert examples.groups.offsets.tolist() == [0, 3, 5, 8]
    texts = ["query: text 0", "doc: text 3", "doc: x", "query: text 1", "doc: text 4"]
    for i, text in enumerate(texts):
        own = examples.tokens.input_ids[examples.tokens.offsets[i] : examples.tokens.offsets[i + 1]]
        assert own.tolist() == tokenizer.backend_tokenizer.encode(text).ids
    assert examples.labels.values is None
    scored = read({"sentence1": TEXTS[:4], "sentence2": TEXTS[4:8], "score": [1, 2, 3, 4]})
    examples, _ = encode(scored, tokenizer, settings)
    assert examples.labels.values.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_new_texts_are_single(minilm):
    from jaxtune.data.text.tokens import load_tokenizer

    table = from_memory({"text": TEXTS[:3], "b": TEXTS[:3]}, "rows")
    rows = read_new(table, ("text",), "utf-8")
    settings = from_dict(DataSettings, {"query_prompt": "query: "})
    examples, _ = encode(rows, load_tokenizer(minilm), settings)
    assert isinstance(examples, Examples)
    assert len(examples.lengths) == 3
    with pytest.raises(UserError, match="expected one, --text_columns=NAME"):
        read_new(table, ("text", "b"), "utf-8")
