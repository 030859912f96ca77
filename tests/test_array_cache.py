import os
from types import SimpleNamespace

import numpy as np
import pytest

from jaxtune.io import array_cache

PIECES = [np.arange(5), np.arange(0), np.arange(3)]


def keep(folder, key, pieces=PIECES, **notes):
    with array_cache.keep(folder, key, notes) as append:
        for piece in pieces:
            append({"values": piece, "half": (piece / 2).astype(np.float32)})


def test_pieces_come_back_as_one_and_are_mapped(tmp_path):
    keep(tmp_path, "a", first=1)
    arrays, notes = array_cache.load(tmp_path, "a")
    np.testing.assert_array_equal(arrays["values"], np.concatenate(PIECES))
    np.testing.assert_array_equal(arrays["half"], np.concatenate(PIECES) / 2)
    assert arrays["half"].dtype == np.float32
    assert isinstance(arrays["values"].base, np.memmap)
    assert notes == {"first": 1}
    assert array_cache.load(tmp_path, "b") is None


def test_an_array_without_values_has_its_dtype(tmp_path):
    keep(tmp_path, "a", [np.arange(0, dtype=np.uint16)])
    arrays, _ = array_cache.load(tmp_path, "a")
    assert arrays["values"].dtype == np.uint16
    assert len(arrays["values"]) == 0


def test_what_ends_with_an_error_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        keep(tmp_path, "a", [np.arange(3), None])
    assert not [*tmp_path.iterdir()]


def test_an_answer_takes_the_place_of_another(tmp_path):
    keep(tmp_path, "a")
    keep(tmp_path, "a", [np.arange(2)])
    assert array_cache.load(tmp_path, "a")[0]["values"].tolist() == [0, 1]
    assert len([*tmp_path.iterdir()]) == 1


def test_the_oldest_go_where_the_disk_is_short(tmp_path, monkeypatch):
    free = 10**9
    monkeypatch.setattr(array_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    for key in "abc":
        keep(tmp_path, key)
    (tmp_path / "old.npz").write_bytes(b"of an older version")
    for age, name in enumerate(["b", "a", "c", "old.npz"]):
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    array_cache.load(tmp_path, "a")  # now it is the last one used
    size = sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    free = int(1.5 * size)
    keep(tmp_path, "d")  # of 4 answers and what is free a half: 2.75 of them
    assert {entry.name for entry in tmp_path.iterdir()} == {"a", "d"}
    free = 0
    keep(tmp_path, "e")
    assert {entry.name for entry in tmp_path.iterdir()} == {"e"}  # the newest stays


def test_what_a_killed_run_left_goes_after_a_day(tmp_path):
    for name, age in ((".old.x", 10**6), (".new.x", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "values.bin").write_bytes(b"half")
        then = array_cache.time.time() - age
        os.utime(tmp_path / name, (then, then))
    keep(tmp_path, "a")
    assert {entry.name for entry in tmp_path.iterdir()} == {"a", ".new.x"}
