"""A file or a folder appears whole or not at all."""

import os
import stat

import pytest

from jaxtune.io.atomic import replace_folder, write_atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", ["ä\n", b"\x00\xff", ""])
def test_content_is_written_as_it_is(tmp_path, content):
    path = tmp_path / "new" / "folder" / "a.txt"
    write_atomic(path, content)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    write_atomic(path, "second\n")
    assert path.read_bytes() == b"second\n"
    assert names(path.parent) == ["a.txt"]


def test_the_mode_is_that_of_an_ordinary_file(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "folder").mkdir()
    write_atomic(tmp_path / "a", "")
    replace_folder(tmp_path / "b", lambda fresh: None)
    assert mode(tmp_path / "a") == mode(tmp_path / "plain")
    assert mode(tmp_path / "b") == mode(tmp_path / "folder")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_replaces_the_old_one(tmp_path):
    folder = tmp_path / "deep" / "model"
    replace_folder(folder, lambda fresh: (fresh / "old.txt").write_text("old"))
    assert names(folder) == ["old.txt"]
    replace_folder(folder, lambda fresh: (fresh / "new.txt").write_text("new"))
    assert names(folder) == ["new.txt"]
    assert names(folder.parent) == ["model"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_fill_leaves_the_old_folder(tmp_path, error):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.txt").write_text("old")

    def fill(fresh):
        (fresh / "a.txt").write_text("half")
        raise error

    with pytest.raises(error):
        replace_folder(folder, fill)
    assert (folder / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_what_a_killed_run_left_is_cleared(tmp_path):
    left = tmp_path / ".model.old"
    left.mkdir()
    (left / "a.txt").write_text("older")
    (tmp_path / "model").mkdir()
    replace_folder(tmp_path / "model", lambda fresh: None)
    assert names(tmp_path) == ["model"]
