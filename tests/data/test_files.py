"""Reading one file: every format, every line end, and every fault with its file and line."""

import json
import os
import random
import subprocess
import sys
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources import delimited, files, hub, parquet
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


def test_blocks_of_lines_do_not_show(tmp_path, monkeypatch):
    """Quotes that are never closed begin anew at the next line, wherever a block ends."""
    rng = random.Random(0)
    parts = [
        "text,label",
        "a,b",
        '"c\n\nd",e',
        '"f\r,"",g",h',
        '"open,i',
        "one",
        "",
        "j,k" * 9,
        '"l"m,n',
    ]
    for end in ("\n", "\r\n", "\r"):
        lines = ["text,label", *rng.choices(parts, k=60), "last,row"]
        path = write(tmp_path, "a.csv", end.join(lines).encode())
        whole = read_file(path, ("text", "label"), on_bad_row="skip")
        assert len(whole.rows) + whole.skipped.number > 40
        for size in (1, 7, 64):
            monkeypatch.setattr(delimited, "_BLOCK", size)
            monkeypatch.setattr(delimited, "_RECORDS", size)
            assert read_file(path, ("text", "label"), on_bad_row="skip") == whole
        monkeypatch.undo()


def test_what_reading_takes_grows_with_the_file(tmp_path):
    """The text, its copy while it is decoded, and the values; labels are shared."""
    rows = [f"{i} {'x' * 190},{i % 4} class" for i in range(20_000)]
    path = write(tmp_path, "a.csv", "\n".join(["text,label", *rows]).encode())
    size = os.path.getsize(path)
    tracemalloc.start()
    table = read_file(path, ("text",))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({*map(id, table.columns["label"])}) == 4
    assert held < 1.5 * size
    assert peak < 2.5 * size + (16 << 20)  # a block of lines, at four bytes a character


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


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_header_shows_what_separates_the_fields(tmp_path, separator):
    line = '"Rates, it ""seems"", rise"' + f"{separator}money\n"
    path = write(tmp_path, "a.csv", f"headline{separator}category\n" + line)
    expected = {"headline": ['Rates, it "seems", rise'], "category": ["money"]}
    for required in ((), ("headline",)):
        table = read_file(path, required)
        assert table.columns == expected
        assert f"separated by {'semicolons' if separator == ';' else ''}" in table.notes[0]
    bare = write(tmp_path, "b.csv", line)
    assert read_file(bare, column_names=("headline", "category")).columns == expected
    assert read_file(write(tmp_path, "c.csv", "text\none; two\n"), ("text",)).notes == ()


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("a.txt", "text,label\none,x\n", {}),
        ("a.txt", "text\tlabel\none\tx\n", {}),
        ("a.txt", "one\tx\n", {"column_names": ("text", "label")}),
        ("a.train", "text\tlabel\none\tx\n", {"format": "tsv"}),
        ("all", '{"text": "one", "label": "x"}\n', {"format": "json"}),
        ("a.csv", "text\tlabel\none\tx\n", {"format": "tsv"}),
        ("a.tsv", '"text","label"\n"one",x\n', {"format": "csv"}),
        ("a.txt", '[{"text": "one", "label": "x"}]', {"format": "json"}),
    ],
)
def test_the_format_is_what_the_settings_or_the_first_line_say(tmp_path, name, content, settings):
    table = read_file(write(tmp_path, name, content), ("text",), **settings)
    assert table.columns == {"text": ["one"], "label": ["x"]}


def test_texts_that_look_like_tables_stay_texts(tmp_path):
    path = write(tmp_path, "a.txt", "text, they say\nmore, text\n")
    assert read_file(path, ("text",)).columns == {"text": ["text, they say", "more, text"]}
    with pytest.raises(UserError, match=r"config\.data\.format"):
        column(read_file(path, ("text",)), "label")
    with pytest.raises(UserError, match=r"'\.train'.*config\.data\.format"):
        read_file(write(tmp_path, "a.train", "x"))


def test_glue_files_have_the_columns_of_the_hub(tmp_path):
    mrpc = write(tmp_path, "a.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA\tB\n")
    table = read_file(mrpc, ("sentence1", "sentence2"))
    assert (table.columns["sentence1"], table.columns["label"]) == (["A"], ["1"])
    assert "Quality" in read_file(mrpc, ("#1 String", "#2 String")).columns
    mnli = write(tmp_path, "b.tsv", "index\tsentence1\tsentence2\tgold_label\n0\tA\tB\tneutral\n")
    assert read_file(mnli, ("premise", "hypothesis")).columns["label"] == ["neutral"]
    assert "gold_label" in read_file(mnli, ("sentence1", "sentence2")).columns


def test_keys_that_few_records_have_cost_no_column(tmp_path):
    lines = [
        json.dumps({"text": "a", f"id{i}": 1} | ({"odd": i} if i % 9 else {})) for i in range(2000)
    ]
    table = read_file(write(tmp_path, "a.jsonl", "\n".join(lines)), ("text",))
    assert list(table.columns) == ["text", "odd"]
    assert table.columns["odd"][:2] == [None, 1]
    assert "2000 keys" in table.notes[0]


LONG = "x" * 99


@pytest.mark.parametrize(
    ("name", "content", "settings", "parts"),
    [
        (
            "a.csv",
            f"text\n{LONG}\n",
            {"max_row_characters": 50},
            ("line 2", "99", "at most 50"),
        ),
        (
            "a.tsv",
            f"text\n{LONG}\n",
            {"max_row_characters": 50},
            ("line 2", "99", "at most 50"),
        ),
        (
            "a.jsonl",
            f'{{"text": "{LONG}"}}',
            {"max_row_characters": 50},
            ("line 1", "at most 50"),
        ),
        ("a.json", "[" * 100_000, {}, ("line 1", "nested more than 64 deep")),
        ("a.json", '{"data": ' + "[" * 100_000, {}, ("line 1", "nested more than 64 deep")),
        ("a.jsonl", '{"text": ' + "[" * 65 + "]" * 65 + "}", {}, ("line 1", "nested more than")),
        ("a.jsonl", '{"text": "a", "n": {"b": 1, "b": 2}}', {}, ("line 1", "the key 'b' twice")),
        ("a.csv", ",".join(map(str, range(10**5))) + "\n1\n", {}, ("line 2", "99990 more")),
        ("a.csv", "text\none\n", {"encoding": "punycode"}, ("a.csv", "punycode")),
        ("a.csv", "text\n+2D0-\n", {"encoding": "utf-7"}, ("a.csv line 2", "surrogate pair")),
    ],
)
def test_sizes_and_depths_have_limits(tmp_path, name, content, settings, parts):
    text = message(write(tmp_path, name, content), **settings)
    for part in parts:
        assert part in text
    assert len(text) < 600


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to("/dev/zero")
    for name in ("a.csv", "b.csv"):
        assert "a FIFO, a socket or a device" in message(str(tmp_path / name))


def test_parquet_of_the_type_json(tmp_path):
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Json"):
        pytest.skip("datasets 5 and later")
    features = datasets.Features({"text": datasets.Json(), "tags": datasets.List(datasets.Json())})
    values = {"text": ['a "good" day', 1984], "tags": [["a\n"], [{"b": None}]]}
    data = datasets.Dataset.from_dict(values, features=features)
    data.to_parquet(str(tmp_path / "a.parquet"))
    expected = {name: [row[name] for row in data] for name in values}
    assert read_file(str(tmp_path / "a.parquet")).columns == expected
    assert hub.from_dataset(data, "x[train]").columns == expected


@pytest.mark.parametrize(
    "metadata",
    [
        b"[]",
        b"{",
        b'{"info": 3}',
        b'{"info": {"features": {"text": {"_type": "Tomorrow"}}}}',
        b'{"info": {"features": {"text": {"_type": "ClassLabel", "names": [1]}, "x": 7}}}',
    ],
)
def test_metadata_of_another_kind_is_left_alone(tmp_path, metadata):
    table = pyarrow.table({"text": ["a"]}).replace_schema_metadata({b"huggingface": metadata})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    table = read_file(str(tmp_path / "a.parquet"))
    assert (table.columns, table.class_names) == ({"text": ["a"]}, {})


def test_parquet_that_grows_or_names_a_column_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_FREE", 2**20)
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * 10_000] * 2_000}), path)
    text = message(path)
    assert "config.data.max_expansion 100 times" in text
    assert len(read_file(path, max_expansion=10**6).columns["text"]) == 2_000
    pyarrow.parquet.write_table(pyarrow.table([[1], [2]], names=["a", "a"]), path)
    assert "'a' more than once" in message(path)


def test_parquet_texts_that_are_not_utf8(tmp_path):
    path = str(tmp_path / "a.parquet")
    binary = pyarrow.array([b"good", b"caf\xe9", None])
    texts = pyarrow.StringArray.from_buffers(3, *binary.buffers()[1:], binary.buffers()[0])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    assert "row 2: in the column 'text' found the byte 0xe9" in message(path)
    table = read_file(path, on_bad_row="skip")
    assert (table.columns["text"], list(table.rows)) == (["good", None], [1, 3])


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


def test_a_path_that_can_be_none():
    assert message("a\0b.csv") == r"'a\x00b.csv' can be no path: embedded null byte."
