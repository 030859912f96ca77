import hashlib

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import class_order, read_data, read_evaluation
from jaxtune.data.text import text_tables
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.settings.data import DataSettings, SourceSettings
from jaxtune.settings.dicts import from_dict

CLASSES = ("bad", "good", "so")


def make_rows(n, first=0):
    """Distinct texts; a third of them in each class."""
    return [(f"text {i}", CLASSES[i % 3]) for i in range(first, first + n)]


def read(path, regression=False, **fields):
    reader = text_tables.TARGETS if regression else text_tables.CLASSES
    return read_data(from_dict(DataSettings, {"path": str(path), **fields}), reader)


def texts(data, split):
    return [row[0] for row in data.splits[split].inputs]


@pytest.fixture
def single(tmp_path, write_csv):
    return write_csv(tmp_path / "all.csv", make_rows(90))


@pytest.fixture
def folder(tmp_path, write_csv):
    write_csv(tmp_path / "folder" / "train.csv", make_rows(60))
    write_csv(tmp_path / "folder" / "validation.csv", make_rows(30, first=100))
    write_csv(tmp_path / "folder" / "test.csv", make_rows(24, first=200))
    return tmp_path / "folder"


def test_the_splits_of_a_folder_are_taken_as_they_are(folder):
    data = read(folder, validation_size=0.5, test_size=0.5)
    assert {split: len(rows.inputs) for split, rows in data.splits.items()} == {
        "train": 60, "validation": 30, "test": 24,
    }  # fmt: skip
    assert texts(data, "train") == [f"text {i}" for i in range(60)]
    assert data.class_names == CLASSES
    assert data.splits["test"].labels.dtype == np.int32
    assert data.splits["test"].labels.tolist() == [i % 3 for i in range(200, 224)]
    assert data.notes == []


@pytest.mark.parametrize(("validation_size", "test_size"), [(0.2, 0.3), (9, 12), (9.0, 0.3)])
def test_missing_splits_are_held_out_of_train(single, validation_size, test_size):
    data = read(single, validation_size=validation_size, test_size=test_size)
    sizes = {split: len(rows.inputs) for split, rows in data.splits.items()}
    test = round(test_size if test_size > 1 else 90 * test_size)
    validation = round(validation_size if validation_size > 1 else (90 - test) * validation_size)
    assert sizes == {"train": 90 - test - validation, "validation": validation, "test": test}
    everything = [text for split in data.splits for text in texts(data, split)]
    assert sorted(everything) == sorted(text for text, _ in make_rows(90))
    for rows in data.splits.values():
        assert rows.labels.tolist() == [int(text.split()[1]) % 3 for (text,) in rows.inputs]
        counts = np.bincount(rows.labels, minlength=3)
        assert np.ptp(counts) <= 2
    assert any(note.startswith(f"test: {test} rows held out") for note in data.notes)
    assert any(note.startswith(f"validation: {validation} rows held out") for note in data.notes)


def test_without_a_test_size_there_is_no_test_split(single):
    assert set(read(single).splits) == {"train", "validation"}


def test_duplicates_do_not_straddle_splits(tmp_path, write_csv):
    rows = [(f"text {i % 30}", CLASSES[i % 3]) for i in range(120)]
    data = read(write_csv(tmp_path / "all.csv", rows), validation_size=0.2, test_size=0.2)
    parts = [set(texts(data, split)) for split in data.splits]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 30
    assert not any("also in train" in note for note in data.notes)


def test_the_test_rows_do_not_depend_on_the_size_of_validation(single):
    found = [
        texts(read(single, validation_size=size, test_size=0.2), "test") for size in (0.1, 0.3, 20)
    ]
    assert found[0] == found[1] == found[2]


def test_the_split_is_a_function_of_its_seed(single):
    def split(seed):
        data = read(single, validation_size=0.2, test_size=0.2, split_seed=seed)
        return texts(data, "test"), texts(data, "validation")

    assert split(0) == split(0)
    assert split(0)[0] != split(1)[0]
    assert split(0)[1] != split(1)[1]


def test_subsets_are_stratified_and_limit_each_split(folder):
    data = read(folder, max_train_examples=12, max_eval_examples=6)
    for split, count in (("train", 12), ("validation", 6), ("test", 6)):
        assert np.bincount(data.splits[split].labels).tolist() == [count // 3] * 3
    assert set(texts(data, "train")) <= {text for text, _ in make_rows(60)}
    assert texts(data, "train") == texts(read(folder, max_train_examples=12), "train")
    more = read(folder, max_train_examples=1000, max_eval_examples=1000)
    assert [len(rows.inputs) for rows in more.splits.values()] == [60, 30, 24]


def test_held_out_rows_are_never_training_rows_of_a_subset(single):
    data = read(single, validation_size=0.2, max_train_examples=30)
    assert not set(texts(data, "validation")) & set(texts(data, "train"))
    assert texts(data, "validation") == texts(read(single, validation_size=0.2), "validation")


def test_a_test_split_without_labels_is_left_out_with_a_note(folder, write_csv):
    write_csv(folder / "test.csv", [(f"text {i}", "-1") for i in range(5)])
    data = read(folder)
    assert set(data.splits) == {"train", "validation"}
    assert [note for note in data.notes if "test.csv has no labels" in note]


def test_texts_that_are_also_in_train_are_noted(folder, write_csv):
    write_csv(folder / "test.csv", make_rows(3) + make_rows(7, first=300))
    assert "3 of 10 test texts are also in train" in read(folder).notes


def test_an_unseen_class_in_validation_is_refused(folder, write_csv):
    write_csv(folder / "validation.csv", [("text", "good"), ("text", "awful")])
    with pytest.raises(UserError, match=r"validation\.csv line 3.*'awful'"):
        read(folder)


def test_the_digest_of_one_file_is_its_sha256(single):
    expected = hashlib.sha256(single.read_bytes()).hexdigest()
    assert read(single).sha256 == expected
    assert read(single, sha256=expected).sha256 == expected


def test_the_digest_of_a_folder_is_that_of_the_joined_files(folder):
    names = ("test.csv", "train.csv", "validation.csv")
    joined = b"".join((folder / name).read_bytes() for name in names)
    assert read(folder).sha256 == hashlib.sha256(joined).hexdigest()


def test_a_wrong_digest_is_refused(single):
    with pytest.raises(UserError, match=r"all\.csv: the data has sha256 .*, expected 12ab"):
        read(single, sha256="12ab")


def test_regression_has_targets_and_no_classes(tmp_path, write_csv):
    rows = [(f"text {i}", i / 4) for i in range(40)]
    path = write_csv(tmp_path / "all.csv", rows, header=("sentence", "score"))
    data = read(
        path, regression=True, text_columns=("sentence",), label_column="score",
        validation_size=0.25, test_size=5,
    )  # fmt: skip
    assert data.class_names == ()
    assert {split: len(rows.inputs) for split, rows in data.splits.items()} == {
        "train": 26, "validation": 9, "test": 5,
    }  # fmt: skip
    for rows in data.splits.values():
        assert rows.labels.dtype == np.float32
        assert rows.labels.tolist() == [[int(text.split()[1]) / 4] for (text,) in rows.inputs]


def test_pairs(tmp_path, write_csv):
    rows = [(f"one {i}", f"two {i}", CLASSES[i % 3]) for i in range(12)]
    path = write_csv(tmp_path / "all.csv", rows, header=("a", "b", "label"))
    data = read(path, text_columns=("a", "b"), validation_size=3)
    assert all(b == a.replace("one", "two") for a, b in data.splits["train"].inputs)


@pytest.fixture(scope="module")
def tokenizer(golden):
    return load_tokenizer(golden / "odd")


def test_cut_texts_are_noted(tmp_path, write_csv, tokenizer):
    long = [("the cat and the dog ran", CLASSES[i % 3]) for i in range(4)]
    short = [(f"cat {word}", CLASSES[i % 3]) for i, word in enumerate("abcdef")]
    write_csv(tmp_path / "train.csv", long + short)
    write_csv(tmp_path / "validation.csv", [("good dog", "good")])
    data = read(tmp_path)
    examples, notes = text_tables.encode(
        data.splits["train"], tokenizer, from_dict(DataSettings, {"max_length": 6})
    )
    assert notes == ["4 of 10 texts are longer than max_length 6 and were cut"]
    assert examples.lengths.max() == 6
    assert text_tables.encode(data.splits["validation"], tokenizer, DataSettings())[1] == []


def test_regression_targets_are_kept(tmp_path, write_csv, tokenizer):
    path = write_csv(tmp_path / "all.csv", [(f"cat {i}", i / 8) for i in range(10)])
    data = read(path, regression=True, validation_size=2)
    for rows in data.splits.values():
        examples, _ = text_tables.encode(rows, tokenizer, DataSettings())
        np.testing.assert_array_equal(examples.labels, rows.labels)
        assert examples.labels.dtype == np.float32
        assert examples.labels.shape == (len(rows.inputs), 1)


def test_class_order():
    np.testing.assert_array_equal(class_order(CLASSES, ("so", "bad", "good")), [1, 2, 0])
    assert class_order((), ()).shape == (0,)


def test_progress_is_tracked(folder, tokenizer):
    calls = []

    def track(iterable):
        calls.append(len(list(iterable)))
        return range(0, 1)

    text_tables.encode(read(folder).splits["train"], tokenizer, DataSettings(), track)
    assert calls == [1]


# --- Evaluation ---------------------------------------------------------------------------------


def evaluated(path, names=CLASSES, trained_on=None, **fields):
    settings = from_dict(DataSettings, {"path": str(path), **fields})
    data = read_evaluation(settings, text_tables.CLASSES, names, trained_on)
    return {split: len(rows.inputs) for split, rows in data.splits.items()}, data


def test_evaluation_scores_all_rows_of_one_file(single):
    sizes, data = evaluated(single)
    assert sizes == {"data": 90}
    assert data.splits["data"].labels.tolist() == [i % 3 for i in range(90)]
    assert evaluated(single, test_size=0.5)[0] == {"data": 90}
    sizes, data = evaluated(single, max_eval_examples=30)
    assert sizes == {"data": 30}
    assert "data: 30 of 90 rows, by config.data.max_eval_examples" in data.notes


def test_evaluation_scores_the_held_out_rows_of_the_data_that_was_trained_on(single, write_csv):
    run = read(single, test_size=0.2)
    trained_on = SourceSettings(path="elsewhere", sha256=run.sha256)
    sizes, data = evaluated(single, trained_on=trained_on, test_size=0.2)
    assert sizes == {"test": 18, "validation": 7}
    for split, rows in data.splits.items():
        assert rows.inputs == run.splits[split].inputs
    write_csv(single, make_rows(30, first=900))
    assert evaluated(single, trained_on=trained_on)[0] == {"data": 30}


def test_evaluation_scores_the_splits_that_there_are(folder):
    assert evaluated(folder)[0] == {"validation": 30, "test": 24}


def test_evaluation_follows_the_classes_of_the_model(single):
    names = ("so", "other", "bad", "good")
    labels = evaluated(single, names)[1].splits["data"].labels
    assert [names[i] for i in labels] == [CLASSES[i % 3] for i in range(90)]
    with pytest.raises(UserError, match=r"all\.csv line 4.*'so'.*bad, good\..*30 of 90 labels"):
        evaluated(single, ("bad", "good"))
