"""From a path or hub name to splits: which file is which, and when to refuse."""

import json
import os

import datasets
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources import locate
from jaxtune.data.sources.hub import from_dataset
from jaxtune.data.sources.rows import read_data
from jaxtune.data.sources.table import Table, num_rows, where
from jaxtune.data.text import text_tables
from jaxtune.run.config import load_config
from jaxtune.settings.data import SourceSettings
from jaxtune.settings.dicts import from_dict


def load_tables(path, required=(), **settings):
    """As `locate.load_tables`, with the settings by name."""
    return locate.load_tables(from_dict(SourceSettings, {"path": path, **settings}), required)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A look-up on the hub fails the test, unless the test brings its own."""

    def refuse(*args, **options):
        raise AssertionError(f"load_dataset{args} {options} was called")

    # AssertionError would be turned into a UserError like any other failure of the hub.
    monkeypatch.setattr(datasets, "load_dataset", refuse)


@pytest.fixture
def folder(tmp_path):
    """Fills a folder with csv files, each with its own name as its only text."""

    def fill(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"text\n{name}\n")
        return str(tmp_path)

    return fill


def message(path, **options):
    """The message of the UserError that loading the path raises."""
    with pytest.raises(UserError) as caught:
        load_tables(path, **options)
    assert "AssertionError" not in str(caught.value)
    return str(caught.value)


def texts(tables):
    """Split -> its texts."""
    return {split: table.columns["text"] for split, table in tables.items()}


def test_one_file_is_the_train_split(folder):
    path = folder("anything.csv") + "/anything.csv"
    tables = load_tables(path)
    assert texts(tables) == {"train": ["anything.csv"]}
    assert tables["train"].source == path


@pytest.mark.parametrize(
    "train", ["train.csv", "Training_set.csv", "wnut17train.csv", "AGTrain.CSV"]
)
@pytest.mark.parametrize(
    "validation",
    ["dev.csv", "val.csv", "sts-valid.csv", "validation.v2.csv", "eval-v1.1.csv", "devel.csv"],
)
@pytest.mark.parametrize(
    "test", ["test.csv", "original_sts-test.csv", "testing.csv", "2020test.csv"]
)
def test_words_of_file_names(folder, train, validation, test):
    path = folder(train, validation, test)
    expected = {"train": [train], "validation": [validation], "test": [test]}
    assert texts(load_tables(path)) == expected


def test_other_files_are_left_alone(folder):
    # `latest`, `interval` and `restrain` hold the words test, val and train; so do hidden files.
    path = folder("train.csv", "README.md", "LICENSE.txt", "test.csv.gz", "latest.csv")
    folder("interval.csv", "restrain.csv", "labels.json", ".cache/test.csv", ".test.csv")
    tables = load_tables(path)
    assert texts(tables) == {"train": ["train.csv"]}
    left = (
        "LICENSE.txt, README.md, interval.csv, labels.json, latest.csv, restrain.csv, test.csv.gz"
    )
    assert tables["train"].notes == (f"{path}: left alone, as no split has such a name: {left}",)


def test_a_whole_word_goes_before_a_part(folder):
    path = folder("train_test2.csv", "test.csv")
    assert texts(load_tables(path)) == {"train": ["train_test2.csv"], "test": ["test.csv"]}


def test_shards_are_put_together_in_order(folder):
    names = [f"train-0000{i}-of-00003.csv" for i in range(3)]
    path = folder(*reversed(names), "test-00000-of-00001-0123456789abcdef.csv")
    tables = load_tables(path + "/")
    assert texts(tables)["train"] == names
    assert where(tables["train"], 1) == f"{path}/{names[1]} line 2"
    assert list(tables) == ["train", "test"]


def test_headerless_test_file_beside_headed_ones(tmp_path):
    (tmp_path / "train.tsv").write_text("index\tsentence1\tsentence2\tscore\n0\tA\tB\t5.0\n")
    (tmp_path / "original_sts-test.tsv").write_text("news\t2.5\tC\tD\n")
    tables = load_tables(
        str(tmp_path),
        column_names=("genre", "score", "sentence1", "sentence2"),
        required=("sentence1", "sentence2", "score"),
    )
    assert tables["train"].columns["score"] == ["5.0"]
    assert tables["test"].columns["score"] == ["2.5"]
    assert where(tables["test"], 0).endswith("original_sts-test.tsv line 1")


def test_encoding_reaches_the_files(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"text\ncaf\xe9\n")
    assert texts(load_tables(str(tmp_path), encoding="latin-1")) == {"train": ["café"]}


AMBIGUOUS = [
    (["train_test.csv"], ["train_test.csv", "test, train", "Rename"]),
    (["train.csv", "train_extra.csv"], ["train.csv, train_extra.csv", "expected one file"]),
    (["train.csv", "train.tsv"], ["train.csv, train.tsv", "of one format"]),
    (["train.csv", "dev.csv", "val.csv"], ["validation split", "dev.csv, val.csv"]),
    (["train-0-of-2.csv", "train-1-of-2.tsv"], ["train-0-of-2.csv, train-1-of-2.tsv"]),
    (["train-0-of-2.csv", "train.csv"], ["train-0-of-2.csv, train.csv", "Remove or rename"]),
    (["train-0-of-2.csv"], ["1 of the 2 shards", "train-0-of-2.csv", "Complete the folder"]),
    (["data.csv", "dev.csv"], ["no train file among data.csv, dev.csv", "expected one", "Rename"]),
    (["README.md"], ["no train file among no data files", ".parquet"]),
    (["a/train.csv", "b/train.csv"], ["several folders: a, b", "config.data.name"]),
    (["a/train.csv", "b/test.csv"], ["several folders: a, b", "only a has", "config.data.name"]),
]


@pytest.mark.parametrize(("names", "expected"), AMBIGUOUS)
def test_ambiguous_folder(folder, names, expected):
    path = folder(*names)
    text = message(path)
    for part in [path, *expected]:
        assert part in text


def test_shards_must_have_the_same_columns(folder, tmp_path):
    path = folder("train-0-of-2.csv")
    (tmp_path / "train-1-of-2.csv").write_text("sentence\nx\n")
    text = message(path)
    for part in ("train-1-of-2.csv", "sentence", "train-0-of-2.csv: 'text'", "must agree"):
        assert part in text


def test_subfolder_of_hub_layout(folder):
    path = folder("README.md", "data/train-00000-of-00001.csv", "data/test-00000-of-00001.csv")
    assert list(load_tables(path)) == ["train", "test"]
    assert list(load_tables(path, name="stsb")) == ["train", "test"]
    assert load_tables(path)["train"].source == f"{path}/data/train-00000-of-00001.csv"


def test_name_picks_a_subfolder(folder):
    path = folder("stsb/train.csv", "stsb/validation.csv", "cola/train.csv", "ax/test.csv")
    expected = {"train": ["stsb/train.csv"], "validation": ["stsb/validation.csv"]}
    assert texts(load_tables(path, name="stsb")) == expected
    text = message(path, name="stbs")
    for part in (path, "cola, stsb", "'stbs'", "Nearest: stsb.", "config.data.name"):
        assert part in text


def test_train_file_of_the_folder_itself_goes_before_subfolders(folder):
    path = folder("train.csv", "original/train.csv", "original/train_test.csv")
    assert texts(load_tables(path)) == {"train": ["train.csv"]}


@pytest.mark.parametrize(
    "path", ["./no", "/no/where", "~/no", "no.csv", "owner/no.parquet", "a/b/c", "../a", "a b"]
)
def test_missing_path_never_reaches_the_network(path):
    text = message(path)
    assert path in text
    assert "does not exist" in text
    assert "Check the path" in text


def test_missing_path_names_what_is_near(folder):
    path = folder("train.csv", "other.csv")
    assert "Nearest: train.csv, other.csv." in message(path + "/trian.csv")
    assert "other.csv, train.csv" in message(path + "/0000")


def test_empty_path_is_not_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder("train.csv"))
    assert "found no path" in message("")


def labelled(texts, labels):
    """A dataset with a ClassLabel column."""
    label = datasets.ClassLabel(names=["World", "Sports", "Business"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    return datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)


def test_from_dataset_keeps_class_names_and_selection():
    dataset = labelled(["a", "b", "c"], [2, 0, 1]).select([2, 0])
    table = from_dataset(dataset, "ag_news[train]")
    assert table == Table(
        {"text": ["c", "a"], "label": [1, 2]},
        "ag_news[train]",
        range(1, 3),
        {"label": ("World", "Sports", "Business")},
        unit="row",
    )
    assert where(table, 1) == "ag_news[train] row 2"


def test_hub_parquet_folder_reads_like_the_hub(tmp_path):
    (tmp_path / "data").mkdir()
    dataset = labelled(["a", "b"], [2, 0])
    for i in range(2):
        dataset.to_parquet(str(tmp_path / f"data/train-0000{i}-of-00002.parquet"))
    table = load_tables(str(tmp_path))["train"]
    assert table.columns == {"text": ["a", "b"] * 2, "label": [2, 0] * 2}
    assert table.class_names == {"label": ("World", "Sports", "Business")}
    assert where(table, 3).endswith("train-00001-of-00002.parquet row 2")


@pytest.mark.parametrize(
    ("hub", "expected"),
    [
        (["train", "test"], {"train": "train", "test": "test"}),
        (["train", "validation", "unsupervised"], {"train": "train", "validation": "validation"}),
        (["train", "val"], {"train": "train", "validation": "val"}),
        (["train", "dev"], {"train": "train", "validation": "dev"}),
        (
            ["train", "validation_mismatched", "validation_matched", "test_matched"],
            {"train": "train", "validation": "validation_matched", "test": "test_matched"},
        ),
    ],
)
def test_hub_splits(monkeypatch, hub, expected):
    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return datasets.DatasetDict({split: labelled([split], [0]) for split in hub})

    monkeypatch.setattr(datasets, "load_dataset", load)
    tables = load_tables("owner/glue", name="mnli", required=("text",))
    assert calls == [(("owner/glue", "mnli"), {})]
    assert texts(tables) == {split: [word] for split, word in expected.items()}
    assert tables["train"].source == "owner/glue/mnli[train]"
    with pytest.raises(UserError, match=r"glue\[train\].*Nearest: text\..*config\.data"):
        load_tables("glue", required=("texts",))


def test_hub_without_train(monkeypatch):
    found = datasets.DatasetDict({"test": labelled(["a"], [0])})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: found)
    text = message("glue")
    assert "glue" in text
    assert "splits test" in text
    assert "config.data.name" in text


@pytest.mark.parametrize(
    "error", [ConnectionError("offline"), ValueError("Config name is missing.\nPick one")]
)
def test_hub_failure(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    text = message("owner/glue", name="stsb")
    first_line = str(error).splitlines()[0]
    for part in ("load_dataset('owner/glue', 'stsb')", type(error).__name__, first_line, "folder"):
        assert part in text


def test_num_rows_of_concatenated(folder):
    path = folder(*(f"train-{i}-of-4.csv" for i in range(4)))
    assert num_rows(load_tables(path)["train"]) == 4


# --- Published layouts ------------------------------------------------------------------------


def test_glue_folders_are_read_as_they_are(tmp_path):
    mrpc = 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA "\tB\n'
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(mrpc)
    (tmp_path / "test.tsv").write_text(mrpc.replace("Quality", "index"))
    (tmp_path / "dev_ids.tsv").write_text("7\t8\n")
    (tmp_path / "msr_paraphrase_train.txt").write_text(mrpc)
    tables = load_tables(str(tmp_path), ("sentence1", "sentence2"))
    assert tables["validation"].source == f"{tmp_path}/dev.tsv"
    assert tables["train"].columns["sentence1"] == ['A "']
    assert "label" not in tables["test"].columns
    assert tables["train"].notes[-1].endswith(": dev_ids.tsv, msr_paraphrase_train.txt")


def test_the_matched_files_of_mnli_are_taken(tmp_path):
    header = "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tA\tB\tneutral\tneutral\n"
    for name in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"):
        (tmp_path / f"{name}.tsv").write_text(header)
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "multinli_1.0_train.txt").write_text(header)
    tables = load_tables(str(tmp_path), ("sentence1", "sentence2"))
    assert [tables[split].source.split("/")[-1] for split in ("validation", "test")] == [
        "dev_matched.tsv",
        "test_matched.tsv",
    ]
    left = "dev_mismatched.tsv, test_mismatched.tsv, original/"
    assert tables["train"].notes == (
        f"{tmp_path}: left alone, as no split has such a name: {left}",
    )


@pytest.mark.parametrize("name", ["cola", "mrpc"])
def test_the_configs_read_the_files_of_glue(tmp_path, name):
    pair = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    rows = {
        "cola": ["gj04\t1\t\tIt is good.\n", 'clc95\t0\t*\tGood it "is\n'],
        "mrpc": [pair + "1\t7\t8\tA\tB\n0\t7\t8\tC\tD\n"],
    }
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("".join(rows[name]))
    settings = load_config(name, {"data.path": str(tmp_path), "data.name": "None"})
    data = read_data(settings.data, text_tables.CLASSES)
    assert data.class_names == ("0", "1")
    expected = {"cola": [("It is good.",), ('Good it "is',)], "mrpc": [("A", "B"), ("C", "D")]}
    assert data.splits["validation"].inputs == expected[name]


def test_a_folder_of_texts_for_each_class(tmp_path):
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(2):
                (tmp_path / split / label / f"{i}_7.txt").write_text(f"{split} {label}\n{i}")
        (tmp_path / split / "urls_pos.txt").write_text("http://")
    (tmp_path / "train" / "unsup").mkdir()
    (tmp_path / "train" / "unsup" / "0_0.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    tables = load_tables(str(tmp_path), ("review",))
    assert tables["test"].columns == {
        "review": [f"test {label}\n{i}" for label in ("neg", "pos") for i in range(2)],
        "label": ["neg", "neg", "pos", "pos"],
    }
    assert where(tables["train"], 3) == f"{tmp_path}/train/pos/1_7.txt"
    (note,) = tables["train"].notes
    for part in ("unsup/ 1", ".txt 2", "README 1"):
        assert part in note
    (tmp_path / "train" / "neg" / "0_7.txt").write_bytes(b"caf\xe9")
    assert "neg/0_7.txt line 1: found the byte 0xe9" in message(str(tmp_path), required=("text",))


def test_classes_of_texts_without_a_suffix(tmp_path):
    for split in ("20news-bydate-train", "20news-bydate-test"):
        for label in ("alt.atheism", "sci.med"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "49960").write_text(label)
    tables = load_tables(str(tmp_path), ("text",))
    assert tables["train"].columns["label"] == tables["test"].columns["text"]


def test_an_object_of_splits(tmp_path):
    path = tmp_path / "data_full.json"
    content = {
        "oos_val": [["what", "oos"]],
        "val": [["a", "x"]],
        "train": [["b\n", "y"], ["c", "x"]],
        "test": [{"text": "d", "label": "x"}],
    }
    path.write_text(json.dumps(content))
    tables = load_tables(str(path), ("text",))
    assert texts(tables) == {"train": ["b\n", "c"], "validation": ["a"], "test": ["d"]}
    assert tables["train"].columns["label"] == ["y", "x"]
    assert where(tables["train"], 1) == f"{path} train row 2"
    assert tables["train"].notes[0].endswith("oos_val (1 rows)")
    content["train"][1] = ["c"]
    path.write_text(json.dumps(content))
    assert "found a JSON list" in message(str(path), required=("text",))


def test_a_fifo_in_a_folder_is_no_file_to_wait_for(tmp_path, folder):
    path = folder("train.csv")
    os.mkfifo(tmp_path / "dev.csv")
    assert "dev.csv is a FIFO" in message(path)


@pytest.mark.parametrize("name", ["x" * 5000 + ".csv", "./a\0b.csv", "./\ud83d.csv"])
def test_a_name_that_no_file_can_have(name):
    assert "does not exist" in message(name)
