"""Rows that cannot be read or learnt from: the first one ends the run, or all are left out."""

import json

import pytest
from PIL import Image

from jaxtune.core.errors import UserError
from jaxtune.data.images import images
from jaxtune.data.sources.bad_rows import BadRowsError, bad_rows, no_text
from jaxtune.data.sources.memory import from_memory
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text import text_tables, words
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict


def read(path, reader=text_tables.CLASSES, **settings):
    values = {"path": str(path), "validation_size": 4, **settings}
    return read_data(from_dict(DataSettings, values), reader)


def failure(*arguments, **settings):
    with pytest.raises(UserError) as caught:
        read(*arguments, **settings)
    return str(caught.value)


def total(data):
    return sum(len(rows.inputs) for rows in data.splits.values())


CSV = [f"text {i},{'ab'[i % 2]}" for i in range(30)]
JSON = [json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) for i in range(30)]
CONLL = [f"w{i} {'B-p' if i % 2 else 'O'}\nx O\n" for i in range(30)]

TABLES = [
    ("a.csv", "text,label\n", CSV, {3: "one", 9: ",a", 20: "text,"}),
    ("a.csv", "text,label\n", CSV, {9: '"a"b,a', 20: '"open,a'}),
    ("a.csv", "text,label\n", CSV, {3: "\udc80,a", 9: "a,b,c", 20: ""}),
    ("a.tsv", "text\tlabel\n", [line.replace(",", "\t") for line in CSV], {4: "one", 8: "\ta"}),
    ("a.jsonl", "", JSON, {3: "{", 9: '{"text": "a"}', 20: '{"text": 1, "label": "a"}'}),
    ("a.jsonl", "", JSON, {3: "[1]", 9: '{"text": "\\ud83d", "label": "a"}', 20: "[" * 999}),
    ("a.jsonl", "", JSON, {3: '{"text": "a", "text": "b", "label": "a"}', 20: "1" + "0" * 5000}),
]


@pytest.mark.parametrize(("name", "head", "lines", "bad"), TABLES)
def test_the_first_bad_row_is_named_or_all_are_skipped(tmp_path, name, head, lines, bad):
    lines = [bad.get(i, line) for i, line in enumerate(lines)]
    text = head + "\n".join(lines) + "\n"
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    first = min(bad) + 1 + bool(head)
    message = failure(tmp_path / name)
    assert f"{name} line {first}: " in message
    assert len(message) < 500
    data = read(tmp_path / name, on_bad_row="skip")
    assert total(data) == 30 - len(bad)
    (note,) = [note for note in data.notes if "skipped" in note]
    assert f"{len(bad)} of 30 rows skipped by config.data.on_bad_row" in note
    for i in bad:
        assert f"line {i + 1 + bool(head)}: " in note
    assert {row for part in data.splits.values() for row in part.inputs} == {
        (f"text {i}",) for i in range(30) if i not in bad
    }


def test_a_bad_word_leaves_out_its_sentence(tmp_path):
    lines = [*CONLL]
    lines[3], lines[7] = "w O\nalone\n", "w O\nx oops\n"
    (tmp_path / "a.conll").write_text("\n".join(lines))
    assert "a.conll line 11: found 'alone'" in failure(tmp_path / "a.conll", words.READER)
    data = read(tmp_path / "a.conll", words.READER, on_bad_row="skip")
    assert total(data) == 28
    (note,) = [note for note in data.notes if "skipped" in note]
    assert "line 11: found 'alone'; " in note
    assert "line 23: found the tag 'oops'" in note


def test_a_broken_image_is_left_out(tmp_path):
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (4, 4), (i, 9, ord(name))).save(tmp_path / "train" / name / f"{i}.png")
    for i in (1, 4):
        (tmp_path / "train" / "a" / f"{i}.png").write_bytes(b"no")
    assert "a/1.png: found a broken file" in failure(tmp_path, images.CLASSES)
    data = read(tmp_path, images.CLASSES, on_bad_row="skip")
    assert total(data) == 10
    (note,) = [note for note in data.notes if "skipped" in note]
    assert "2 of 12 rows" in note
    assert "a/4.png" in note


def test_nothing_but_bad_rows_is_no_data(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n,a\n,b\n")
    assert "all 2 rows are bad" in failure(tmp_path / "a.csv", on_bad_row="skip")
    (tmp_path / "a.jsonl").write_text("{\n{\n")
    assert "no records that can be read: " in failure(tmp_path / "a.jsonl", on_bad_row="skip")


def test_the_first_row_of_several_checks(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\n ,x\nc,\n" + "d,y\n" * 9)
    assert "line 3: found ' ' in the column 'text'" in failure(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,\n ,x\n" + "d,y\n" * 9)
    assert "line 3: found '' in the label column" in failure(tmp_path / "a.csv")


def test_all_bad_rows_are_found_whatever_the_check_tells():
    bad = {0, 1, 255, 256, 700}

    def one_at_a_time(rows):
        for i, row in enumerate(rows):
            if row in bad:
                raise BadRowsError({i: f"row {row}"})

    assert bad_rows(one_at_a_time, 701) == {row: f"row {row}" for row in bad}


def test_what_is_no_text():
    assert no_text({"a": ["é", {"b": "\U0001f600"}], "c": b"\xff"}) is None
    assert "half of a surrogate pair (\\ud83d)" in no_text({"a": ["x", {"b\ud83d": 1}]})
    assert "the byte 0xe9, but expected text in ascii" in no_text(["caf\udce9"], "ascii")
    with pytest.raises(UserError, match=r"data\[train\] row 2: in the column 't' found half"):
        from_memory({"t": ["a", "b\ud83d"]}, "train")
