import os
import shutil
from functools import partial

import numpy as np
import pytest

from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import text_tables, token_cache
from jaxtune.data.text.tokens import load_tokenizer, tokenize
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks.registry import TASKS
from jaxtune.tasks.task import keeping_tokens

TEXTS = [("good film",), ("the cat ran so far on the film",), ("",), ("bad",)]


@pytest.fixture
def tokenizer(golden):
    return load_tokenizer(golden / "odd")


@pytest.fixture
def asked(monkeypatch):
    """How many rows were really tokenized, call by call."""
    counts = []

    def count(tokenizer, rows, *rest):
        counts.append(len(rows))
        return tokenize(tokenizer, rows, *rest)

    monkeypatch.setattr(token_cache, "tokenize", count)
    return counts


def same(one, other):
    (first, first_cut), (second, second_cut) = one, other
    arrays = ("input_ids", "token_type_ids", "offsets")
    for name in arrays:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert getattr(first, name).dtype == getattr(second, name).dtype
    assert (first_cut, first.pad_token_id) == (second_cut, second.pad_token_id)


@pytest.mark.parametrize("rows", [TEXTS, [("good film", "bad"), ("the", "cat ran on the film")]])
def test_the_second_time_is_read(tokenizer, asked, tmp_path, rows):
    expected = tokenize(tokenizer, rows, 6)
    for _ in range(3):
        same(token_cache.tokenize_once(tmp_path, tokenizer, rows, 6), expected)
    assert asked == [len(rows)]
    assert len([*tmp_path.iterdir()]) == 1


def test_whatever_the_tokens_follow_from_is_in_the_name(tokenizer, asked, tmp_path, golden):
    once = partial(token_cache.tokenize_once, tmp_path)
    lists = (TEXTS, TEXTS[:3], TEXTS[::-1], [("a", "bc")], [("ab", "c")], [("a",), ("bc",)])
    for rows in lists:
        once(tokenizer, rows, 6)
    once(tokenizer, TEXTS, 7)
    folder = tmp_path / "model"
    shutil.copytree(golden / "odd", folder)
    once(load_tokenizer(folder), TEXTS, 6)  # found, since it has the same files
    (folder / "model.safetensors").write_bytes(b"other weights")
    once(load_tokenizer(folder), TEXTS, 6)
    assert asked == [*map(len, lists), 4]
    file = folder / "tokenizer_config.json"
    file.write_text(file.read_text().replace("{", '{"truncation_side": "left", ', 1))
    once(load_tokenizer(folder), TEXTS, 6)
    assert asked == [*map(len, lists), 4, 4]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-40], lambda data: b"PK" + bytes(100), None]
)
def test_a_damaged_file_is_made_again(tokenizer, asked, tmp_path, damage):
    expected = token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    middle = len(data) // 3
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    file.write_bytes(damage(data) if damage else flipped)
    same(token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6), expected)
    same(token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6), expected)
    assert asked in ([4, 4], [4])  # a flipped byte between the arrays harms nothing


def test_a_pickle_is_not_read(tokenizer, asked, tmp_path):
    token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6)
    (file,) = tmp_path.iterdir()
    with np.load(file) as arrays:
        fields = dict(arrays)
    np.savez(file, **fields | {"input_ids": np.array([len], object)})
    token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6)
    assert asked == [4, 4]


def test_the_oldest_files_are_removed(tokenizer, asked, tmp_path, monkeypatch):
    once = partial(token_cache.tokenize_once, tmp_path, tokenizer)
    once(TEXTS, 4)
    (first,) = tmp_path.iterdir()
    once(TEXTS, 5)
    for age, file in enumerate(sorted(tmp_path.iterdir(), key=lambda file: file == first)):
        os.utime(file, (1000 - age, 1000 - age))
    once(TEXTS, 4)  # now it is the last one used
    monkeypatch.setattr(token_cache, "MAX_BYTES", int(2.5 * first.stat().st_size))
    once(TEXTS, 6)
    assert len([*tmp_path.iterdir()]) == 2
    assert first.exists()
    monkeypatch.setattr(token_cache, "MAX_BYTES", 10)
    once(TEXTS, 7)
    assert len([*tmp_path.iterdir()]) == 2  # too large to keep


def test_a_folder_that_is_gone_or_full_is_no_error(tokenizer, tmp_path, monkeypatch):
    expected = tokenize(tokenizer, TEXTS, 6)
    (tmp_path / "file").write_text("")
    same(token_cache.tokenize_once(tmp_path / "file", tokenizer, TEXTS, 6), expected)


@pytest.mark.parametrize("name", TASKS)
def test_tasks_of_whole_texts_keep_theirs(name, tokenizer, asked, tmp_path):
    task = keeping_tokens(TASKS[name], tmp_path)
    assert keeping_tokens(TASKS[name], None) is TASKS[name]
    if name not in ("classification", "multi_label", "regression"):
        assert task is TASKS[name]
        return
    rows = Rows(TEXTS, np.arange(4, dtype=np.int32))
    settings = from_dict(DataSettings, {"max_length": 6, "token_dropout": 0.1})
    (first, notes), (second, again) = (
        task.data.encode(rows, tokenizer, settings, iter) for _ in range(2)
    )
    expected, expected_notes = text_tables.encode(rows, tokenizer, settings)
    assert notes == again == expected_notes
    for found in (first, second):
        np.testing.assert_array_equal(found.tokens.input_ids, expected.tokens.input_ids)
        np.testing.assert_array_equal(found.labels, rows.labels)
        assert found.transform is not None
    assert asked == [4]
