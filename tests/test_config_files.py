"""A config is found by its path, or by its name from any folder."""

from pathlib import Path

import pytest

from jaxtune.core.errors import UserError
from jaxtune.run.config import load_config
from jaxtune.run.config_files import find_config, named_configs

CONFIGS = Path(__file__).parents[1] / "configs"


def test_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {name: path.resolve() for name, path in named_configs().items()} == {
        file.stem: file for file in CONFIGS.glob("*.py")
    }
    settings = load_config("cifar10", {"train.batch_size": "8"})
    assert settings.train.batch_size == 8
    assert (Path(settings.model.path) / "config.json").is_file()


def test_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.json").write_text("{}")
    for name in ("mine.json", "./mine.json", "~/mine.json", str(tmp_path / "mine.json")):
        assert find_config(name).samefile(tmp_path / "mine.json")


def test_a_folder_of_that_name_is_in_nobodys_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agnews").mkdir()
    assert find_config("agnews").samefile(CONFIGS / "agnews.py")


@pytest.mark.parametrize("name", ["agnew", "agnews.py", "configs/agnews.py", "agnews.json"])
def test_neither(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        find_config(name)
    text = str(caught.value)
    assert text.startswith(f"--config={name}: there is no such file.")
    assert text.endswith(" Nearest: agnews.")
    assert ("Those of jaxtune: agnews, cifar10, cola" in text) == (name == "agnew")
