"""What is sent to a hub, to whom, and what is refused; the hub is a function."""

import json
from types import SimpleNamespace

import pytest
from huggingface_hub.utils import filter_repo_objects

from jaxtune import __main__ as console
from jaxtune.core.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A model folder with things in it that are none of its files."""
    model = tmp_path / "model"
    (model / "cache").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (model / "link.txt").symlink_to(tmp_path / "secret.txt")
    (model / "cache" / "inner.json").write_text("{}")
    (model / ".env").write_text("secret")
    (model / "odd[1].txt").write_text("own")
    (model / "config.json").write_text("{}")
    (model / "jaxtune.json").write_text(json.dumps({"base_model": "/home/me/base"}))
    (model / "model.safetensors").write_bytes(b"weights")
    return model


@pytest.fixture
def hub(monkeypatch):
    """What the hub was asked for."""
    import huggingface_hub

    asked = []

    class Api(huggingface_hub.HfApi):
        def create_repo(self, repo_id, **fields):
            asked.append(("create", self.token, repo_id, fields))
            return SimpleNamespace(repo_id=repo_id, __str__=lambda: "")

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, **fields):
            found = [p.relative_to(folder_path) for p in folder_path.rglob("*") if p.is_file()]
            names = filter_repo_objects(map(str, found), allow_patterns=allow_patterns)
            asked.append(("upload", self.token, repo_id, sorted(names)))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    return asked


def push(folder, *more):
    console.run(["push", f"--model={folder}", "--to=me/mine", *more])


def test_only_the_folders_own_files_are_sent_and_the_repository_is_private(folder, hub, capsys):
    push(folder)
    (_, token, name, fields), (_, _, target, files) = hub
    assert (token, name, target) == ("hf_secret", "me/mine", "me/mine")
    assert fields == {"repo_type": "model", "private": True, "exist_ok": True}
    assert files == ["config.json", "jaxtune.json", "model.safetensors", "odd[1].txt"]
    told = capsys.readouterr().out
    assert "not sent, as they are no files of the folder itself: .env, cache, link.txt" in told
    assert "jaxtune.json tells a path of this machine, in base_model" in told
    assert "hf_secret" not in told


def test_a_repository_is_public_where_somebody_asks_for_it(folder, hub):
    push(folder, "--public")
    assert hub[0][3]["private"] is False


def test_without_a_token_nothing_is_asked(folder, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="there is no token"):
        push(folder)
    assert not hub


def test_what_the_hub_refuses_is_one_message(folder, hub, monkeypatch):
    import huggingface_hub

    def refuse(*args, **fields):
        raise OSError("403 Forbidden\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"--to=me/mine: the hub refuses.*403 Forbidden$"):
        push(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: model / "none", "there is no such folder"),
        (lambda model: model / "cache", "has no config.json"),
        (lambda model: (model / "model.safetensors").unlink() or model, "has no .safetensors"),
        (
            lambda model: (model.parent / "checkpoints").mkdir() or model.parent,
            "is the workdir of a run: name",
        ),
    ],
)
def test_what_is_no_model_folder_is_refused(change, told, folder, hub):
    with pytest.raises(UserError, match=told):
        push(change(folder))
    assert not hub


def test_a_name_without_an_owner_is_refused(folder, hub):
    with pytest.raises(UserError, match="expected USER/NAME"):
        console.run(["push", f"--model={folder}", "--to=mine"])
    assert not hub
