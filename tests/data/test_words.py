"""Words and tags: what is read, and what is refused with which words."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.metrics.sequence_labeling import get_entities

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import read_data
from jaxtune.data.sources.table import Table
from jaxtune.data.text import tags
from jaxtune.data.text.word_tokens import Words
from jaxtune.data.text.words import READER, from_words, read_new, split_words
from jaxtune.settings.data import ColumnSettings, DataSettings, SourceSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks import token_classification

COLUMNS = ColumnSettings(text_columns=("tokens",), label_column="ner")
PERSON = ("O", "B-person", "I-person")
PERSON_P = ("O", "B-p", "I-p")


def table(words, ner, names=(), source="dir/train.jsonl"):
    """One row a line, the first on line 2."""
    declared = {"ner": tuple(names)} if names else {}
    return Table({"tokens": words, "ner": ner}, source, range(2, 2 + len(words)), declared)


def one_word_each(*values, names=()):
    return table([["a"]] * len(values), [[value] for value in values], names)


def failure(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


# --- Classes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["O", "B-b", "B-a", "I-a"], ("O", "B-a", "B-b", "I-a", "I-b")),
        (["I-a"], ("O", "B-a", "I-a")),
        (["B-a", "S-a", "B-b-c"], ("O", *(f"{p}-{t}" for p in "BEIS" for t in ("a", "b-c")))),
        (["B", "O"], ("O", "B", "I")),
        (["person", "O", "Before"], ("O", "Before", "person")),
        (["VERB", "NOUN"], ("O", "NOUN", "VERB")),
    ],
)  # fmt: skip
def test_class_names(found, expected):
    assert READER.class_names(one_word_each(*found, "O"), COLUMNS) == expected
    assert READER.class_names(one_word_each("O", *found[::-1]), COLUMNS) == expected


def test_declared_names_count_even_where_no_word_has_them():
    train = one_word_each(0, 1, names=("O", "B-x", "I-x", "B-a"))
    names = READER.class_names(train, COLUMNS)
    assert names == ("O", "B-a", "B-x", "I-a", "I-x")
    # Another file may declare the same tags in another order.
    other = one_word_each(0, 1, 2, names=("I-x", "O", "B-a"))
    rows = READER.rows(other, COLUMNS, names)
    assert [t.names[int(t.classes[0])] for t in rows.labels] == ["I-x", "O", "B-a"]


@pytest.mark.parametrize(
    ("train", "parts"),
    [
        (one_word_each("B-a", "comment", "O"), ("line 3", "'comment'", "'ner'", "B-, I-")),
        (one_word_each("a", "b", "B-a", "O"), ("line 2", "the tag 'a'")),
        (one_word_each("B-a", "L-a", "U-a", "O"), ("line 3", "the tag 'L-a'", "E-, S-")),
        (one_word_each(0, names=("B-a", "a")), ("dir/train.jsonl: found the tag 'a'",)),
        (one_word_each("O", "O"), ("found 1 class", "(O)", "config.data.label_column")),
        (one_word_each("O", 3), ("line 3", "the number 3", "no class names")),
        (one_word_each("O", None), ("line 3", "found nothing", "'ner'")),
        (one_word_each("O", " "), ("line 3", "found ' '", "'ner'")),
        (table([["a", "b"]], [["O"]]), ("line 2", "found 1 tags", "a list of 2")),
        (table([["a"]], ["O"]), ("line 2", "found 'O'", "a list of 1")),
        (table([["a"]], [None]), ("line 2", "found None", "a list of 1")),
        (table([["a"], []], [["O"], []]), ("line 3", "found []", "'tokens'", "not empty")),
        (table([["a"], None], [["O"], None]), ("line 3", "found nothing", "'tokens'")),
        (table([["a"], "b c"], [["O"], ["O"]]), ("line 3", "found 'b c'", "a list of words")),
        (table([["a", 1]], [["O", "O"]]), ("line 2", "found ['a', 1]", "a list of words")),
    ],
)
def test_faults_of_training_data(train, parts):
    message = failure(READER.class_names, train, COLUMNS)
    for part in ("dir/train.jsonl", *parts):
        assert part in message


def test_rows():
    words = [["a", "b"], ["c"], ["a", "b"]]
    rows = READER.rows(table(words, [["B-person", "I-person"], ["O"], ["O", "O"]]), COLUMNS, PERSON)
    assert [sentence.words for sentence in rows.inputs] == words
    assert [tags.classes.tolist() for tags in rows.labels] == [[1, 2], [0], [0, 0]]
    assert all(tags.classes.dtype == np.int32 for tags in rows.labels)
    assert rows.own_keys[0] == rows.own_keys[2] != rows.own_keys[1]  # these stay together
    assert len(set(rows.own_keys)) == 2


def test_an_unknown_type_in_validation_is_an_error_and_a_missing_partner_is_not():
    names = READER.class_names(one_word_each("B-person", "O"), COLUMNS)
    READER.rows(one_word_each("I-person"), COLUMNS, names)
    message = failure(READER.rows, one_word_each("O", "B-persn"), COLUMNS, names)
    for part in (
        "line 3",
        "'B-persn'",
        "training data: O, B-person, I-person",
        "Nearest: B-person",
    ):
        assert part in message


@pytest.mark.parametrize("columns", [(), ("a", "b")])
def test_one_text_column(columns):
    asked = ColumnSettings(text_columns=columns, label_column="ner")
    message = failure(READER.class_names, one_word_each("O"), asked)
    assert f"config.data.text_columns: found {len(columns)} columns" in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[-1, -1], [-1]], False),
        ([None, None], False),
        ([[], []], False),
        (["", ""], False),
        ([[-1], [0]], True),
        ([["O"]], True),
    ],
)
def test_has_labels(values, expected):
    assert READER.has_labels(table([["a"]] * len(values), values), COLUMNS) is expected
    assert not READER.has_labels(Table({"tokens": []}, "x.conll", [], {}), COLUMNS)


# --- Files ----------------------------------------------------------------------------------


def test_conll_files_need_no_column_names(tmp_path):
    (tmp_path / "train.conll").write_text(
        "Al B-p\nis O\n\n" + "".join(f"w{i} O\n\n" for i in range(9))
    )
    (tmp_path / "dev.iob").write_text("Al I-p\n\nAl O\n")
    (tmp_path / "test.bio").write_text("Al\nis\n")
    data = read_data(from_dict(DataSettings, {"path": str(tmp_path)}), READER)
    assert data.class_names == ("O", "B-p", "I-p")
    assert [tags.classes.tolist() for tags in data.splits["validation"].labels] == [[2], [0]]
    assert "test" not in data.splits
    assert any("test.bio has no labels" in note for note in data.notes)


@pytest.mark.parametrize("columns", [COLUMNS, ColumnSettings()])
def test_a_fault_in_a_conll_file_has_the_line_of_the_word(tmp_path, columns):
    (tmp_path / "train.conll").write_text("a O\nb B-p\n\nc O\nd oops\ne O\n")
    tables = READER.load(SourceSettings(str(tmp_path)), columns)
    message = failure(READER.class_names, tables["train"], columns)
    assert "train.conll line 5: found the tag 'oops'" in message
    (tmp_path / "train.conll").write_text("a\nb\n")
    tables = READER.load(SourceSettings(str(tmp_path)), columns)
    message = failure(READER.class_names, tables["train"], columns)
    assert "train.conll: found one field on each line" in message


def test_shards_and_the_split_off_validation(tmp_path):
    for k in range(2):
        lines = [f"w{k}{i} {'B-p' if i % 2 else 'O'}\nx O\n\n" for i in range(10)]
        (tmp_path / f"train-{k}-of-2.conll").write_text("".join(lines))
    settings = from_dict(DataSettings, {"path": str(tmp_path), "validation_size": 4})
    data = read_data(settings, READER)
    assert {split: len(rows.inputs) for split, rows in data.splits.items()} == {
        "train": 16, "validation": 4,
    }  # fmt: skip
    for rows in data.splits.values():
        for sentence, gold in zip(rows.inputs, rows.labels, strict=True):
            assert gold.classes.tolist() == [int(sentence.words[0][-1]) % 2, 0]
    (tmp_path / "train-1-of-2.conll").write_text("a B-p\nb O\nc ?\n")
    assert "train-1-of-2.conll line 3: found the tag '?'" in failure(read_data, settings, READER)


def test_json_lines_and_the_class_names_of_parquet(tmp_path):
    import datasets

    rows = [{"tokens": ["Al", "is"], "ner": [1, 0]}, {"tokens": ["so"], "ner": [0]}]
    label = datasets.ClassLabel(names=["O", "B-p"])
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner": datasets.List(label)}
    )
    dataset = datasets.Dataset.from_list(rows, features=features)
    dataset.to_parquet(str(tmp_path / "train.parquet"))
    named = [row | {"ner": [label.int2str(tag) for tag in row["ner"]]} for row in rows]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    settings = from_dict(
        DataSettings, {"path": str(tmp_path), "text_columns": ("tokens",), "label_column": "ner"}
    )
    data = read_data(settings, READER)
    assert data.class_names == ("O", "B-p", "I-p")
    for part in data.splits.values():
        assert [sentence.words for sentence in part.inputs] == [["Al", "is"], ["so"]]
        assert [gold.classes.tolist() for gold in part.labels] == [[1, 0], [0]]


@pytest.mark.parametrize(
    ("lines", "classes", "note"),
    [
        ("w 0\nOslo LOC\nlies 0\n\n", ("O", "LOC"), "'0' as 'O' (24 words)"),
        ("w O\nOslo B-LOC\nlies 0\n\n", ("O", "B-LOC", "I-LOC"), "'0' as 'O' (12 words)"),
        ("w _\nOslo B_LOC\nFjord I_LOC\n\n", ("O", "B-LOC", "I-LOC"), "'B_LOC' as 'B-LOC'"),
        ("w o\nOslo B-LOC \nlies -\n\n", ("O", "B-LOC", "I-LOC"), "'-' as 'O' (12 words)"),
        ("w NN\nlies VB\nso NN\n, -\n\n", ("O", "-", "NN", "VB"), "'-' (12 words) counts as"),
        ("w 0\nx 1\ny 2\n\n", ("O", "0", "1", "2"), "'0' (12 words) counts as a type"),
    ],
)
def test_tags_that_are_written_otherwise(tmp_path, lines, classes, note):
    (tmp_path / "train.conll").write_text(lines * 12)
    (tmp_path / "dev.conll").write_text(lines)
    data = read_data(from_dict(DataSettings, {"path": str(tmp_path)}), READER)
    assert data.class_names == classes
    assert any(note in said for said in data.notes)


def test_blanks_around_tags_of_json_lines(tmp_path):
    row = {"tokens": ["a", "b"], "ner": [" B-p", "O "]}
    (tmp_path / "train.jsonl").write_text((json.dumps(row) + "\n") * 9)
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n")
    settings = {"path": str(tmp_path), "text_columns": ("tokens",), "label_column": "ner"}
    assert read_data(from_dict(DataSettings, settings), READER).class_names == PERSON_P


# --- New data -------------------------------------------------------------------------------


def test_spans():
    sentence = from_words(["New", "", "York\u200d", "\U0001f600"])
    assert sentence.text == "New  York\u200d \U0001f600"
    assert sentence.words == ["New", "", "York\u200d", "\U0001f600"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't go, Al!", ["Don", "'", "t", "go", ",", "Al", "!"]),
        ("  @a_b\t$5...\u00a0x ", ["@", "a_b", "$", "5", ".", ".", ".", "x"]),
        ("\U0001f600\U0001f600 caf\u00e9", ["\U0001f600", "\U0001f600", "caf\u00e9"]),
        ("cafe\u0301 \u0939\u093f\u4e2d", ["cafe\u0301", "\u0939\u093f", "\u4e2d"]),
        ("\u200b", ["\u200b"]),
        ("\u6211\u5728Tokyo\u3002", ["\u6211", "\u5728", "Tokyo", "\u3002"]),
        ("\u304c\u3059 \u0e17\u0e35\u0e48", ["\u304c", "\u3059", "\u0e17\u0e35\u0e48"]),
    ],
)  # fmt: skip
def test_split_words(text, words):
    sentence = split_words(text)
    assert sentence.text == text
    assert sentence.words == words


@pytest.mark.parametrize(
    ("name", "content", "columns", "expected"),
    [
        ("a.txt", "Al is.\nso", (), [["Al", "is", "."], ["so"]]),
        ("a.txt", "Al is.\nso", ("tokens",), [["Al", "is", "."], ["so"]]),
        ("a.conll", "Al B-p\nis. O\n\nso O\n", ("tokens",), [["Al", "is."], ["so"]]),
        ("a.conll", "Al\nis.\n\nso\n", (), [["Al", "is."], ["so"]]),
        ("a.txt", "Al NNP B-p\nis. VB O\n\nso RB O\n", (), [["Al", "is."], ["so"]]),
        ("a.tsv", "Al\tB-p\nis.\tO\n\nso\tO\n", ("tokens",), [["Al", "is."], ["so"]]),
        ("a.csv", "id,text\n1,Al is.\n2,so\n", (), [["Al", "is", "."], ["so"]]),
        ("a.jsonl", '{"w": ["Al", "is."]}\n{"w": "so"}\n', (), [["Al", "is."], ["so"]]),
        ("a.jsonl", '{"w": ["Al", "is."], "text": 1}\n', ("w",), [["Al", "is."]]),
    ],
)
def test_read_new(tmp_path, name, content, columns, expected):
    path = tmp_path / name
    path.write_text(content)
    rows = read_new(path, columns, "utf-8")
    assert [sentence.words for sentence in rows.inputs] == expected
    assert rows.labels is None


@pytest.mark.parametrize(
    ("name", "content", "columns", "parts"),
    [
        ("a.txt", "", (), ("a.txt",)),
        ("a.jsonl", '{"w": [1]}\n', (), ("line 1", "found [1]", "'w'")),
        ("a.jsonl", '{"w": ["a"], "v": 1}\n', (), ("w, v", "--text_columns=NAME")),
        ("a.jsonl", '{"w": ["a"]}\n', ("x",), ("'w'", "'x'")),
        ("a.csv", "a,b\n1,2\n", ("a", "b"), ("--text_columns", "found 2 columns")),
        ("a.pdf", "", (), ("found the suffix '.pdf'",)),
    ],
)
def test_faults_of_new_data(tmp_path, name, content, columns, parts):
    path = tmp_path / name
    path.write_text(content)
    message = failure(read_new, path, columns, "utf-8")
    for part in (str(path), *parts) if "found 2" not in parts[-1] else parts:
        assert part in message


# --- Entities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (["B-a", "I-a", "O", "B-a", "B-a"], [("a", 0, 1), ("a", 3, 3), ("a", 4, 4)]),
        (["O", "I-a", "I-b", "B-b-c"], [("a", 1, 1), ("b", 2, 2), ("b-c", 3, 3)]),
        (["S-a", "B-a", "I-a", "E-a", "E-b"], [("a", 0, 0), ("a", 1, 3), ("b", 4, 4)]),
        (["B", "I", "B", "O"], [("_", 0, 1), ("_", 2, 2)]),
        (["O", "O"], []),
    ],
)
def test_entities_of_prefixed_tags(sequence, expected):
    assert tags.have_prefixes(sequence)
    assert tags.entities(sequence, True) == expected


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (["a", "a", "O", "a", "b-c"], [("a", 0, 1), ("a", 3, 3), ("b-c", 4, 4)]),
        (["B", "Before", "I"], [("B", 0, 0), ("Before", 1, 1), ("I", 2, 2)]),
    ],
)
def test_entities_of_plain_tags(sequence, expected):
    assert not tags.have_prefixes(sequence)
    assert tags.entities(sequence, False) == expected


@pytest.mark.parametrize("kinds", [["-a", "-b-c", "-B"], [""]])
def test_entities_are_those_of_seqeval(kinds):
    rng = np.random.default_rng(0)
    known = ["O", *(prefix + kind for prefix in "BIES" for kind in kinds)]
    plain = ["O", "a", "b-c", "B"]
    for _ in range(2000):
        sequence = rng.choice(known, rng.integers(0, 12)).tolist()
        assert tags.entities(sequence, True) == get_entities(sequence)
        sequence = rng.choice(plain, rng.integers(0, 12)).tolist()
        prefixed = [tag if tag == "O" else f"I-{tag}" for tag in sequence]
        assert tags.entities(sequence, False) == get_entities(prefixed)


def test_a_type_that_training_lacks_counts_as_missed_and_has_no_part_in_the_loss():
    train, test = one_word_each("B-person", "O"), one_word_each("B-person", "B-place", "O")
    names = READER.class_names(train, COLUMNS)
    assert "on_unknown_class=wrong" in failure(READER.rows, test, COLUMNS, names)
    wrong = dataclasses.replace(COLUMNS, on_unknown_class="wrong")
    rows = READER.rows(test, wrong, names)
    assert "1 of 3 labels" in rows.notes[0]
    info = [
        Words(sentence, np.zeros(1, int), tags)
        for sentence, tags in zip(rows.inputs, rows.labels, strict=True)
    ]
    logits = [np.eye(3, dtype=np.float32)[[names.index(tag)]] for tag in ("B-person", "O", "O")]
    task = token_classification
    scores = task.scores({}, logits, SimpleNamespace(info=info))
    right = [["B-person"], ["B-place"], ["O"]]
    guess = [["B-person"], ["O"], ["O"]]
    assert scores["f1"] == pytest.approx(seqeval_f1(right, guess))
    assert scores["recall"] == 0.5
    labels = np.array([[tags.classes[0] for tags in rows.labels]], np.int32)
    batch = {"labels": labels, "weight": np.ones((1, 3), np.float32)}
    known = batch | {"weight": np.array([[1, 0, 1]], np.float32), "labels": labels % 3}
    outputs = np.stack(logits, axis=1)
    assert task.batch_metrics(outputs, batch) == task.batch_metrics(outputs, known)
    moved = task.reorder(rows.labels, np.array([2, 1, 0], np.int32))
    assert [tags.names[int(tags.classes[0])] for tags in moved] == ["B-person", "B-place", "O"]
