import json
import shutil
from functools import partial

import numpy as np
import pytest

from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import text_tables, token_cache
from jaxtune.data.text.token_parts import parts
from jaxtune.data.text.tokens import load_tokenizer, tokenize
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks.registry import TASKS
from jaxtune.tasks.task import keeping

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
        return parts(tokenizer, rows, *rest)

    monkeypatch.setattr(token_cache, "parts", count)
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


@pytest.mark.parametrize("name", ["input_ids.bin", "lengths.bin", "index.json"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-4], lambda data: data + bytes(2), None]
)
def test_a_damaged_file_is_made_again(tokenizer, asked, tmp_path, name, damage):
    expected = tokenize(tokenizer, TEXTS, 6)  # what is mapped must not be written over
    token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6)
    (file,) = tmp_path.glob(f"*/{name}")
    data = file.read_bytes()
    middle = len(data) // 3
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    file.write_bytes(damage(data) if damage else flipped)
    same(token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6), expected)
    same(token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6), expected)
    assert asked == [4, 4]


def test_an_index_of_objects_is_not_read(tokenizer, asked, tmp_path):
    token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6)
    (file,) = tmp_path.glob("*/index.json")
    index = json.loads(file.read_text())
    index["arrays"]["input_ids"][0] = "|O"
    file.write_text(json.dumps(index))
    token_cache.tokenize_once(tmp_path, tokenizer, TEXTS, 6)
    assert asked == [4, 4]


@pytest.mark.parametrize(("width", "bytes_a_token"), [(1, 2), (2, 3)])
def test_the_disk_holds_two_bytes_a_token(tokenizer, tmp_path, width, bytes_a_token):
    rows = [("the cat ran so far on the film",) * width] * 5000  # three parts
    found, _ = token_cache.tokenize_once(tmp_path, tokenizer, rows, 32)
    (folder,) = tmp_path.iterdir()
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert sizes.pop("index.json") < 400
    assert sizes.pop("lengths.bin") == 4 * len(rows)
    assert sum(sizes.values()) == bytes_a_token * len(found.input_ids)
    same(token_cache.tokenize_once(tmp_path, tokenizer, rows, 32), tokenize(tokenizer, rows, 32))


def test_a_folder_that_is_gone_or_full_is_no_error(tokenizer, tmp_path, monkeypatch):
    expected = tokenize(tokenizer, TEXTS, 6)
    (tmp_path / "file").write_text("")
    same(token_cache.tokenize_once(tmp_path / "file", tokenizer, TEXTS, 6), expected)


@pytest.mark.parametrize("name", TASKS)
def test_tasks_of_whole_texts_keep_theirs(name, tokenizer, asked, tmp_path):
    task = keeping(TASKS[name], tmp_path)
    assert keeping(TASKS[name], None) is TASKS[name]
    if name not in ("classification", "few_shot", "multi_label", "regression"):
        kept = name in ("question_answering", "image_classification", "embedding")
        kept |= name in ("reranking", "multiple_choice")
        assert (task is TASKS[name]) == (not kept)
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
