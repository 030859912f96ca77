"""Reading one file: every format, every line end, and every fault with its file and line."""

import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources import files
from jaxtune.data.sources.table import Table, column, concatenate, num_rows, take, where
from jaxtune.settings.data import FileSettings


def read_file(path, required=(), **settings):
    """As `files.read_file`, with the settings by name."""
    return files.read_file(path, FileSettings(**settings), required)


def write(folder, name, content):
    """Writes a file (str as UTF-8, line ends untouched) and returns its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def message(path, **options):
    """The message of the UserError that reading the file raises."""
    with pytest.raises(UserError) as caught:
        read_file(path, **options)
    return str(caught.value)


def test_csv_quotes_commas_and_line_ends(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\n"one, ""two""\nthree",x\nfour,y\n')
    table = read_file(path, required=("text", "label"))
    assert table.columns == {"text": ['one, "two"\nthree', "four"], "label": ["x", "y"]}
    assert list(table.rows) == [2, 4]
    assert where(table, 1) == f"{path} line 4"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("trailing", [0, 1, 3])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", ["text,label", "one,x", "two,y"]),
        ("a.tsv", ["text\tlabel", "one\tx", "two\ty"]),
        ("a.jsonl", ['{"text": "one", "label": "x"}', '{"text": "two", "label": "y"}']),
    ],
)
def test_line_ends(tmp_path, name, lines, end, trailing):
    table = read_file(write(tmp_path, name, end.join(lines) + end * trailing))
    assert table.columns == {"text": ["one", "two"], "label": ["x", "y"]}
    assert list(table.rows) == ([1, 2] if name.endswith("jsonl") else [2, 3])


def test_quoted_bare_carriage_return_counts_as_a_line(tmp_path):
    table = read_file(write(tmp_path, "a.csv", 'text,label\r\n"one\rmore",x\r\ntwo,y\r\n'))
    assert table.columns["text"] == ["one\rmore", "two"]
    assert list(table.rows) == [2, 4]


def test_unicode_line_separators_are_text(tmp_path):
    text = "one\u2028two\x0bthree\x85four"
    assert read_file(write(tmp_path, "a.tsv", f"text\n{text}\n")).columns["text"] == [text]
    line = json.dumps({"text": text}, ensure_ascii=False)
    assert read_file(write(tmp_path, "a.jsonl", line)).columns["text"] == [text]


def test_tsv_has_no_quoting(tmp_path):
    path = write(tmp_path, "a.tsv", 'text\tlabel\n"one\tx\nsay "two"\ty\n')
    assert read_file(path).columns["text"] == ['"one', 'say "two"']


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("latin-1", "utf-8"), ("utf-16-le", "utf-16-le")],
)
def test_byte_order_mark_is_dropped(tmp_path, encoding, written):
    path = write(tmp_path, "a.csv", "\ufefftext,label\none,x\n".encode(written))
    assert list(read_file(path, encoding=encoding).columns) == ["text", "label"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_other_encodings(tmp_path, encoding):
    path = write(tmp_path, "a.csv", "text\ncafé\n".encode(encoding))
    assert read_file(path, encoding=encoding).columns == {"text": ["café"]}


def test_long_field(tmp_path):
    long = "word " * 50_000
    assert read_file(write(tmp_path, "a.csv", f"text\n{long}\n")).columns["text"] == [long]


def test_headerless_file_takes_the_given_names(tmp_path):
    names = ("genre", "score", "sentence1", "sentence2")
    bare = read_file(
        write(tmp_path, "test.tsv", "news\t2.5\tA\tB\n"), column_names=names, required=("score",)
    )
    assert bare.columns == {"genre": ["news"], "score": ["2.5"], "sentence1": ["A"]} | {
        "sentence2": ["B"]
    }
    assert list(bare.rows) == [1]
    headed = write(tmp_path, "train.tsv", "index\tsentence1\tsentence2\tscore\n0\tA\tB\t2.5\n")
    table = read_file(headed, column_names=names, required=("score", "sentence1"))
    assert list(table.columns) == ["index", "sentence1", "sentence2", "score"]
    assert list(table.rows) == [2]


def test_given_names_are_compared_when_nothing_is_required(tmp_path):
    names = ("text", "label")
    path = write(tmp_path, "a.csv", "one,x\ntwo,y\n")
    assert read_file(path, column_names=names).columns["text"] == ["one", "two"]
    path = write(tmp_path, "b.csv", "text,label\none,x\n")
    assert read_file(path, column_names=names).columns["text"] == ["one"]


def test_json_array_and_keys_that_only_some_records_have(tmp_path):
    content = '[\n  {"text": "one", "label": 1},\n\n  {"text": "two"}\n]\n'
    table = read_file(write(tmp_path, "a.json", content), required=("text",))
    assert table.columns == {"text": ["one", "two"], "label": [1, None]}
    assert list(table.rows) == [2, 4]


def test_json_suffix_with_one_object_a_line(tmp_path):
    table = read_file(write(tmp_path, "a.json", '{"text": "one"}\n{"text": "two"}\n'))
    assert table.columns == {"text": ["one", "two"]}


BAD = [
    ("a.csv", "text,label\none,x\ntwo\n", ["line 3", "found 1 fields", "expected 2", "quotes"]),
    ("a.csv", 'text,label\n"a\nb",x\n1,2,3\n', ["line 4", "found 3 fields", "expected 2"]),
    ("a.csv", "text,label\n\none,x\n", ["line 2", "found 0 fields", "expected 2"]),
    ("a.csv", 'text,label\none,x\n"two,y\nthree,z\n', ["line 3", "never closed", ".tsv"]),
    ("a.csv", 'text,label\n"one"two,x\n', ["line 2", "malformed", "RFC 4180"]),
    ("a.csv", "text,label\none,x\nt\0wo,y\n", ["line 3", "NUL", "config.data.encoding"]),
    ("a.csv", b"text,label\r\none,x\rcaf\xe9,y\n", ["line 3", "0xe9", "utf-8", "latin-1"]),
    ("a.csv", "text,text\none,x\n", ["'text'", "more than once", "distinct", "Rename"]),
    ("a.csv", "", ["empty file", "expected records"]),
    ("a.csv", "\n\r\n\n", ["empty file", "expected records"]),
    ("a.csv", "text,label\n", ["no records", "at least one"]),
    ("a.tsv", "text\tlabel\na\tb\tc\n", ["line 2", "found 3 fields", "expected 2", "tab"]),
    ("a.tsv", "text\tlabel\na\tb\n\nc\td\n", ["line 3", "found 0 fields", "expected 2"]),
    ("a.tsv", "", ["empty file", "expected records"]),
    ("a.jsonl", '{"text": "a"}\n{"text": \n', ["line 2", "not JSON", "expected one JSON object"]),
    ("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n', ["line 2", "not JSON", "Mend or remove"]),
    ("a.jsonl", '{"text": "a"}\n["b"]\n', ["line 2", "JSON list", "expected an object"]),
    ("a.jsonl", '[{"text": "a"}]\n', ["line 1", "JSON list", "expected an object"]),
    ("a.jsonl", "\n", ["empty file", "expected records"]),
    ("a.json", '[{"text": "a"},\n{"text": b}]', ["line 2", "not JSON", "array of objects"]),
    ("a.json", '[{"text": "a"}\n{"text": "b"}]', ["line 1", "not JSON", "','"]),
    ("a.json", '[{"text": "a"},\n{"text": "b"}', ["line 2", "not JSON", "']'"]),
    ("a.json", '[{"text": "a"}]\n\n[]', ["line 3", "not JSON", "extra data"]),
    ("a.json", "[]", ["no records", "at least one"]),
    ("a.parquet", "version https://git-lfs", ["parquet", "git lfs pull"]),
    ("a.doc", "text\n", ["'.doc'", ".csv", ".parquet", "rename"]),
]


@pytest.mark.parametrize(("name", "content", "expected"), BAD)
def test_malformed_file(tmp_path, name, content, expected):
    path = write(tmp_path, name, content)
    text = message(path)
    for part in [path, *expected]:
        assert part in text


REQUIRED = [
    ("a.csv", "sentence,label\none,x\n", ["line 1", "'sentence', 'label'", "column_names"]),
    ("a.tsv", "sentence\tlabel\none\tx\n", ["line 1", "'sentence', 'label'", "column_names"]),
    (
        "a.jsonl",
        '{"sentences": "a"}\n{"sentence": "b"}\n',
        ["line 2", "found the columns 'sentence',"],
    ),
]


@pytest.mark.parametrize(("name", "content", "expected"), REQUIRED)
def test_missing_column(tmp_path, name, content, expected):
    path = write(tmp_path, name, content)
    text = message(path, required=("sentences",))
    remedy = ["expected 'sentences'", "Nearest: sentence.", "config.data.text_columns"]
    for part in [path, *expected, *remedy, "config.data.label_column"]:
        assert part in text


def test_headerless_file_with_another_number_of_fields(tmp_path):
    path = write(tmp_path, "a.csv", "one,x,2\n")
    text = message(path, column_names=("text", "label"), required=("text",))
    for part in (f"{path} line 1", "found 3", "expected 2", "config.data.column_names"):
        assert part in text


def test_given_names_that_lack_a_required_column(tmp_path):
    path = write(tmp_path, "a.csv", "one,x\n")
    text = message(path, column_names=("texts", "label"), required=("text",))
    for part in (path, "config.data.column_names", "'text'", "Nearest: texts."):
        assert part in text


def test_bad_byte_after_wide_characters(tmp_path):
    # U+0A0D is two bytes that each look like a line end.
    content = "text\n\u0a0d\n".encode("utf-16-le") + b"\x00\xd8x\x00"
    text = message(write(tmp_path, "a.csv", content), encoding="utf-16-le")
    assert "a.csv line 3: found the byte 0x00" in text
    assert "utf-16-le" in text


def test_unknown_encoding(tmp_path):
    text = message(write(tmp_path, "a.csv", "text\none\n"), encoding="latin-one")
    assert "a.csv" in text
    assert "'latin-one'" in text
    assert "latin-1" in text


@pytest.mark.parametrize("name", ["no.csv", "no.jsonl", "no.parquet"])
def test_missing_file(tmp_path, name):
    path = str(tmp_path / name)
    text = message(path)
    assert path in text
    assert "No such file" in text
    assert "Check the path" in text


def test_parquet_brings_class_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["World", "Sports"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    path = str(tmp_path / "a.parquet")
    data.to_parquet(path)
    table = read_file(path, required=("text",))
    assert table.columns == {"text": ["a", "b"], "label": [1, 0]}
    assert table.class_names == {"label": ("World", "Sports")}
    assert where(table, 1) == f"{path} row 2"


def test_parquet_without_metadata(tmp_path):
    folder = tmp_path / "label=1"
    folder.mkdir()
    path = str(folder / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "score": [0.5]}), path)
    table = read_file(path)
    assert table == Table({"text": ["a"], "score": [0.5]}, path, range(1, 2), {}, unit="row")
    text = message(path, required=("texts",))
    for part in (path, "'text'", "Nearest: text.", "config.data.text_columns"):
        assert part in text


def test_take_keeps_places_and_concatenate_keeps_files():
    first = Table({"text": ["a", "b"]}, "x.csv", [2, 5], {})
    second = Table({"text": ["c"]}, "y.csv", [3], {})
    both = concatenate([first, second], "x.csv and 1 more")
    chosen = take(both, [2, 1])
    assert column(chosen, "text") == ["c", "b"]
    assert num_rows(chosen) == 2
    assert [where(chosen, i) for i in range(2)] == ["y.csv line 3", "x.csv line 5"]
    assert where(take(first, [1]), 0) == "x.csv line 5"
    with pytest.raises(UserError, match=r"y\.csv.*columns 'texts'.*x\.csv: 'text'"):
        concatenate([first, Table({"texts": ["c"]}, "y.csv", [3], {})], "all")
    with pytest.raises(UserError, match=r"y\.csv.*class names.*x\.csv"):
        concatenate([first, second._replace(class_names={"text": ("a",)})], "all")


def test_column_names_the_nearest():
    with pytest.raises(UserError, match=r"x\.csv.*'text', 'label'.*Nearest: text\."):
        column(Table({"text": [], "label": []}, "x.csv", [], {}), "texts")


def test_import_is_light():
    """Start-up must not pay for libraries that most runs do not need."""
    rooms = {"sources": ("table", "files", "locate", "splits"), "text": ("labels",)}
    modules = ", ".join(f"jaxtune.data.{room}.{m}" for room, names in rooms.items() for m in names)
    code = f"""import sys, {modules}
print(sorted({{"datasets", "pandas", "pyarrow", "sklearn", "jax"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
