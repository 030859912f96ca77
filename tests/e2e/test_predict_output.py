"""What `jaxtune predict` hands back: the input's columns, flat columns in csv, reasons."""

import csv
import datetime
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cover import mark_rest
from PIL import Image

import jaxtune as jt
from jaxtune import predict
from jaxtune.core.errors import UserError
from jaxtune.run import predict_file
from jaxtune.run.beside import put
from jaxtune.run.flat_records import Shape, flatten


@pytest.fixture(scope="session")
def predicted(tiny_weights, tmp_path_factory):
    """A function: task, family, input, suffix, flags -> rows of the output, as its reader has them.

    `classification` takes a pair where its input is called so.
    """

    def run(task, family, source, suffix=".csv", *flags):
        output = tmp_path_factory.mktemp("out") / f"out{suffix}"
        model = tiny_weights(task, family, 1)
        predict.main([f"--model={model}", f"--input={source}", f"--output={output}", *flags])
        if suffix == ".jsonl":
            return [json.loads(line) for line in output.read_text().splitlines()]
        with output.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    return run


@pytest.fixture
def classified(predicted):
    return lambda source, *more: predicted("classification", "bert", source, *more)


def write(path, text):
    path.write_bytes(text.encode())
    return path


ODD = 'id,text,note\n07,"the ""good"" film","two\nlines, and\rmore"\n8,  ,\n9,so bad,=1+1\n'
PREDICTED = ["label", "probability_no", "probability_yes"]


def test_a_csv_comes_back_with_its_fields_as_they_were(classified, tmp_path):
    source = write(tmp_path / "in.csv", ODD)
    with source.open(newline="") as stream:
        given = list(csv.DictReader(stream))
    rows = classified(source)
    assert [*rows[0]] == ["id", "text", "note", *PREDICTED, "reason"]
    assert [{k: row[k] for k in given[0]} for row in rows] == given
    assert [bool(row["label"]) for row in rows] == [True, False, True]
    assert "in.csv line 5: the column 'text' is empty" in rows[1]["reason"]
    assert rows[1]["probability_no"] == "" == rows[0]["reason"]
    assert sum(float(rows[0][name]) for name in PREDICTED[1:]) == pytest.approx(1)
    again = classified(source, ".jsonl")
    assert [*again[1].items()][3:-1] == [("label", ""), ("probabilities", {})]
    assert again[1]["reason"] == rows[1]["reason"]
    assert again[0]["reason"] is None
    assert [r["id"] for r in again] == ["07", "8", "9"]


def test_columns_are_chosen(classified, tmp_path):
    source = write(tmp_path / "in.csv", "id,text,title\n1,good film,x\n2,bad,y\n")
    rows = classified(source, ".csv", "--columns=title,id")
    assert [*rows[0]] == ["title", "id", *PREDICTED]
    assert [(row["title"], row["id"]) for row in rows] == [("x", "1"), ("y", "2")]
    assert [*classified(source, ".csv", "--columns=")[0]] == PREDICTED
    with pytest.raises(UserError, match=r"columns: found 'titel'.*'id', 'text'.*Nearest: title"):
        classified(source, ".csv", "--columns=id,titel")
    lines = write(tmp_path / "in.txt", "good\nbad\n")
    assert [row["row"] for row in classified(lines)] == ["1", "2"]
    assert [row["text"] for row in classified(lines, ".csv", "--columns=text")] == ["good", "bad"]


def test_names_that_would_be_the_same_are_told_apart(classified, tmp_path):
    header = "label,probability_no,predicted_label,text,label,probabilities,"
    source = write(tmp_path / "in.csv", f"{header}\na,b,c,good film,d,e,f\n")
    (row,) = classified(source)
    names = [*header.split(",")[:4], "label_2", "probabilities", ""]
    assert [*row][: len(names)] == names
    assert [row[name] for name in names] == ["a", "b", "c", "good film", "d", "e", "f"]
    assert [*row][len(names) :] == [
        "predicted_predicted_label", "predicted_probability_no", "probability_yes",
    ]  # fmt: skip
    (row,) = classified(source, ".jsonl")
    assert [*row][-2:] == ["predicted_predicted_label", "predicted_probabilities"]
    twice = write(tmp_path / "twice.csv", "text,text\ngood,bad\n")
    with pytest.raises(UserError, match=r"'text' more than once.*Rename the columns in the file\."):
        classified(twice, ".csv", "--text_columns=text")


def test_the_likeliest_have_columns_by_rank(classified, tmp_path):
    source = write(tmp_path / "in.csv", 'text\ngood film\n""\nbad\n')
    whole, best = classified(source), classified(source, ".csv", "--top_k=1")
    assert [*best[0]] == ["text", "label", "label_1", "probability_1", "reason"]
    assert [*classified(source, ".csv", "--top_k=9")[0]][2:6] == [
        "label_1", "probability_1", "label_2", "probability_2",
    ]  # fmt: skip
    for row, found in zip(best, whole, strict=True):
        assert row["label"] == row["label_1"] == found["label"]
        wanted = found[f"probability_{row['label']}"] if row["label"] else ""
        assert row["probability_1"] == wanted


BAD = {
    "in.csv": 'id,text\n1,good film\n2,so,bad\n\n4,bad\n5,"never closed\n6,dog\n',
    "in.tsv": "id\ttext\n1\tgood film\n2\tso\tbad\n\n4\tbad\n5\n6\tdog\n",
    "in.jsonl": '{"id": 1, "text": "good film"}\n{"id": 2, "text": 7}\n\n{"id": 4, "text": "bad"}\n'
    '{"id": 5, "text": "cut of\n{"id": 6, "text": "dog", "tags": {"a": [1, null]}}\n',
    "in.json": '[{"id": 1, "text": "good film"}, {"text": []}, {"id": 3}, {"id": 4, "text": "bad"},'
    '"five", {"id": 6, "text": "dog"}]',
    "in.txt": "good film\n \n\nbad\n\u3000\ndog\n",
}


@pytest.mark.parametrize("name", mark_rest(BAD, ("in.csv", "in.jsonl")))
def test_a_row_that_cannot_be_read_is_a_row(classified, tmp_path, name, capsys):
    rows = classified(write(tmp_path / name, BAD[name]), ".jsonl")
    said = capsys.readouterr().out
    assert "3 of 6 rows have nothing to predict on" in said
    assert "6 predictions in" in said
    assert "3 of them empty" in said
    assert [bool(row["label"]) for row in rows] == [True, False, False, True, False, True]
    assert all((row["reason"] is None) == bool(row["label"]) for row in rows)
    line = {"in.json": "line 1", "in.csv": "line 6", "in.tsv": "line 6"}.get(name, "line 5")
    assert f"{name} {line}" in rows[4]["reason"]
    key = "row" if name == "in.txt" else "id"
    assert [str(rows[i][key]) for i in (0, 3, 5)] == ["1", "4", "6"]
    good = classified(write(tmp_path / "good.txt", "good film\nbad\ndog\n"), ".jsonl")
    for row, wanted in zip([row for row in rows if row["label"]], good, strict=True):
        assert row["label"] == wanted["label"]
        assert row["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)


def test_a_row_of_other_bytes_is_bad_and_a_file_of_them_is_refused(classified, tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes("text\nschön\n".encode() + b"sch\xf6n\n")
    reasons = [row["reason"] for row in classified(source)]
    assert reasons[0] == ""
    assert "in.csv line 3: found the byte 0xf6" in reasons[1]
    source.write_bytes(b"text\ngood\nsch\xf6n\n")
    with pytest.raises(UserError, match=r"line 3: found the byte 0xf6.*Set --encoding"):
        classified(source)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "in.jsonl",
            '{"text": 1}\n{"text": 2}\n',
            r"none of 2 rows.*line 1: found 1 in the column",
        ),
        ("in.jsonl", '{"txt": "a"}\n{"txt": "b"}\n', r"none of 2 rows.*Nearest: txt"),
        ("in.jsonl", "good\nbad\n", r"none of 2 rows.*not JSON"),
    ],
)
def test_a_file_without_a_row_to_read_is_refused(classified, tmp_path, name, text, message):
    source = write(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        classified(source, ".csv", "--text_columns=text")


def test_parquet_keeps_its_values(classified, tmp_path):
    day = datetime.datetime(2024, 2, 3, 4, 5)
    columns = {
        "text": ["good film", None, "bad"],
        "n": [1.5, float("nan"), 3.0],
        "when": [day, day, None],
        "flag": [True, False, None],
        "more": [{"a": [1, 2]}, None, {"a": []}],
        "raw": [b"\xff", b"", b"a"],
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    rows = classified(tmp_path / "in.parquet", ".jsonl")
    assert [*rows[0]] == ["text", "n", "when", "flag", "more", "label", "probabilities", "reason"]
    assert [row["n"] for row in rows] == [1.5, None, 3.0]
    assert [row["more"] for row in rows] == columns["more"]
    assert rows[0]["when"] == "2024-02-03T04:05:00"
    assert "in.parquet row 2" in rows[1]["reason"]
    flat = classified(tmp_path / "in.parquet", ".csv", "--columns=flag,more,when")
    assert [row["flag"] for row in flat] == ["true", "false", ""]
    assert json.loads(flat[0]["more"]) == columns["more"][0]
    with pytest.raises(UserError, match=r"columns: 'raw' holds bytes"):
        classified(tmp_path / "in.parquet", ".csv", "--columns=text,raw")


def test_tags_keep_what_they_are_of(predicted, tmp_path):
    conll = write(tmp_path / "in.conll", "the O\ncat B-PER\n\na O\ndog\nis O\n\nso O\n")
    rows = predicted("token_classification", "bert", conll, ".jsonl")
    assert [*rows[0]] == ["row", "entities", "tags", "words", "text", "reason"]
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert [row["text"] for row in rows] == ["the cat", "", "so"]
    assert "in.conll line 5" in rows[1]["reason"]
    table = '{"text": "the cat", "tags": ["x"]}\n{"text": 3, "tags": []}\n'
    rows = predicted("token_classification", "bert", write(tmp_path / "in.jsonl", table), ".jsonl")
    assert [*rows[0]] == ["text", "tags", "entities", "predicted_tags", "words", "reason"]
    assert len(rows[0]["predicted_tags"]) == 2
    assert rows[1]["predicted_tags"] == []
    assert rows[1]["text"] == 3


def test_answers_keep_what_they_are_of(tiny_weights, tmp_path):
    model = shutil.copytree(tiny_weights("question_answering", "gpt2", 1), tmp_path / "model")
    card = {"task": "question_answering", "doc_stride": 4, "max_length": 24}
    (model / "jaxtune.json").write_text(json.dumps(card))

    def predicted(source, *flags):
        output = tmp_path / "out.csv"
        predict.main([f"--model={model}", f"--input={source}", f"--output={output}", *flags])
        with output.open(newline="") as stream:
            return list(csv.DictReader(stream))

    asked = {"id": "q7", "question": "who", "answers": []}
    article = {"title": "t", "paragraphs": [{"context": "the cat sat", "qas": [asked]}]}
    squad = write(tmp_path / "squad.json", json.dumps({"data": [article]}))
    (row,) = predicted(squad)
    assert [*row][:2] == ["id", "answer"]
    assert row["id"] == "q7"
    assert len(json.loads(row["n_best"])) >= 1
    (row,) = predicted(squad, "--columns=title,id")
    assert [*row][:3] == ["title", "id", "answer"]
    pairs = write(tmp_path / "in.csv", "id,question,context\n5,who,the cat\n6,,the cat\n")
    rows = predicted(pairs)
    assert [*rows[0]][:4] == ["id", "question", "context", "answer"]
    assert [row["id"] for row in rows] == ["5", "6"]
    assert "'question' is empty" in rows[1]["reason"]


def test_images_keep_their_names_and_a_broken_one_has_a_reason(predicted, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for i in (1, 3):
        Image.fromarray(np.full((9, 9, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"no image")
    rows = predicted("image_classification", "resnet", folder)
    assert [*rows[0]] == ["file", "label", "probability_cat", "probability_dog", "reason"]
    assert [row["file"] for row in rows] == [str(folder / f"{i}.png") for i in (1, 2, 3)]
    assert [bool(row["label"]) for row in rows] == [True, False, True]
    assert "2.png: found a broken file" in rows[1]["reason"]
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "png")
    cells = [{"bytes": stream.getvalue(), "path": None}, {"bytes": b"no", "path": None}, None]
    pq.write_table(pa.table({"image": cells, "key": [1, 2, 3]}), tmp_path / "in.parquet")
    rows = predicted("image_classification", "resnet", tmp_path / "in.parquet", ".jsonl")
    assert [*rows[0]] == ["key", "file", "label", "probabilities", "reason"]
    assert [row["key"] for row in rows] == [1, 2, 3]
    assert [bool(row["label"]) for row in rows] == [True, False, False]


@pytest.mark.parametrize("suffix", mark_rest((".csv", ".jsonl"), (".csv",)))
def test_columns_go_on_where_they_were(suffix, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_file, "CHUNK", 8)
    rows = [f'{i},"text ""{i}"",\nfilm",x{i}' if i % 5 else f"{i},," for i in range(30)]
    source = write(tmp_path / "in.csv", "id,text,label\n" + "\n".join(rows) + "\n")
    model = tiny_weights("classification", "bert", 1)

    def run(name, *flags):
        output = tmp_path / f"{name}{suffix}"
        predict.main([f"--model={model}", f"--input={source}", f"--output={output}", *flags])
        return output.read_bytes()

    whole, chosen = run("whole"), run("chosen", "--columns=id")
    outputs_in, done = predict_file.predictions.outputs_in, []

    def stop(*arguments):
        done.append(0)
        if len(done) == 3:
            raise KeyboardInterrupt
        return outputs_in(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(predict_file.predictions, "outputs_in", stop)
        with pytest.raises(KeyboardInterrupt):
            run("out")
    assert len([p for p in tmp_path.iterdir() if p.name.endswith(".partial")]) == 1
    if suffix == ".csv":
        assert run("out") == whole
        assert len(done) == 3
    else:  # other columns are other records
        assert run("out", "--columns=id") == chosen
    assert len({p.name[0] for p in tmp_path.iterdir()} & {"."}) <= 1
    with io.StringIO(whole.decode(), newline="") as stream:
        if suffix == ".csv":
            assert [row["id"] for row in csv.DictReader(stream)] == [str(i) for i in range(30)]


def test_in_memory_columns_stand_in_records_where_they_are_asked_for(tiny_weights):
    model = jt.load(tiny_weights("classification", "bert", 1))
    rows = [{"text": "good", "label": "a", "key": object()}, {"text": None, "label": "b"}]
    plain = model.predict(rows)
    assert [*plain[0]] == ["label", "probabilities", "reason"]
    beside = model.predict(rows, columns=("key", "label"))
    assert beside[0]["key"] is rows[0]["key"]
    assert [(r["label"], r["predicted_label"]) for r in beside] == [
        ("a", plain[0]["label"]), ("b", ""),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"nothing to embed in .*row 2"):
        model.embed(rows)


SHAPE = Shape(("a", "b"), None, ("x", "y"), "|")


@pytest.mark.parametrize(
    ("record", "shape", "flat"),
    [
        ({"values": [1.5, 2.0]}, SHAPE, {"value_x": 1.5, "value_y": 2.0}),
        ({"values": []}, SHAPE, {"value_x": None, "value_y": None}),
        ({"labels": ["a", "b"], "n": 1}, SHAPE, {"labels": "a|b", "n": 1}),
        ({"labels": ["a"]}, SHAPE._replace(separator=None), {"labels": ["a"]}),
        ({"probabilities": {}}, SHAPE, {"probability_a": None, "probability_b": None}),
        (
            {"probabilities": {"b": 0.7, "a": 0.3}},
            SHAPE._replace(top_k=1),
            {"label_1": "b", "probability_1": 0.7},
        ),
        ({"entities": [{"start": 0}]}, SHAPE, {"entities": [{"start": 0}]}),
    ],
)
def test_what_a_record_nests_has_columns(record, shape, flat):
    assert [*flatten(record, shape).items()] == [*flat.items()]


def test_a_record_says_nothing_of_its_input_twice():
    assert put({"id": 7, "score": 1}, {"id": "7", "answer": "x", "score": 2.0}) == {
        "id": 7, "score": 1, "answer": "x", "predicted_score": 2.0,
    }  # fmt: skip
