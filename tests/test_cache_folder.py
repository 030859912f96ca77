import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtune.core.errors import UserError
from jaxtune.io.cache_folder import private_folder

PROGRAM = """
import jax, jax.numpy as jnp
from jaxtune.training.compiled import Compiled
from jaxtune.training.program_cache import keep_programs
keep_programs(print)
step = Compiled(lambda x, batch: jnp.tanh(x @ batch["a"]).sum())
print(step(jnp.ones((3, 4)), {"a": jnp.ones((4, 5))}))
"""


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "jaxtune"


def test_the_folder_is_made_for_its_user_alone(caches):
    for _ in range(2):
        assert private_folder("x") == caches / "x"
    assert stat.S_IMODE(caches.stat().st_mode) == 0o700
    assert stat.S_IMODE((caches / "x").stat().st_mode) == 0o700


def test_a_relative_xdg_cache_home_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert private_folder("x") == tmp_path / ".cache" / "jaxtune" / "x"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(caches, mode):
    private_folder("x").chmod(mode)
    with pytest.raises(UserError, match="written to by others"):
        private_folder("x")
    (caches / "x").chmod(0o755)  # others may look
    private_folder("x")
    caches.chmod(mode)
    with pytest.raises(UserError, match="written to by others"):
        private_folder("x")


def test_a_link_and_a_file_are_refused(caches, tmp_path):
    caches.mkdir(parents=True, mode=0o700)
    (tmp_path / "elsewhere").mkdir()
    (caches / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="expected a folder"):
        private_folder("x")
    (caches / "y").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        private_folder("y")


def test_a_folder_of_another_user_is_refused(caches, monkeypatch):
    private_folder("x")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(UserError, match="belongs to another user"):
        private_folder("x")


APART = """
import jax
from jaxtune.training.program_cache import keep_programs, keeping_none
keep_programs(print)
jax.jit(lambda x: x + 1)(1.0)
with keeping_none():
    jax.jit(lambda x: x + 2)(1.0)
jax.jit(lambda x: x + 3)(1.0)
"""


def run(program=PROGRAM, **environment):
    known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env=known | {k: str(v) for k, v in environment.items()},
    )
    assert done.stderr == ""
    return done.stdout


def test_programs_are_kept_and_used_again(tmp_path):
    first = run(XDG_CACHE_HOME=tmp_path)
    (folder,) = (tmp_path / "jaxtune").iterdir()
    files = {file.name for file in folder.iterdir()}
    assert any(name.endswith("-cache") for name in files)
    assert run(XDG_CACHE_HOME=tmp_path) == first
    assert {file.name for file in folder.iterdir()} == files


def test_none_is_kept_in_between(tmp_path):
    """JAX asks once a process whether programs are kept."""
    run(APART, XDG_CACHE_HOME=tmp_path)
    (folder,) = (tmp_path / "jaxtune").iterdir()
    assert len([*folder.glob("jit__lambda*-cache")]) == 2


def test_the_environment_says_otherwise(tmp_path):
    run(XDG_CACHE_HOME=tmp_path / "a", JAX_COMPILATION_CACHE_DIR=tmp_path / "own")
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "own").is_dir()
    run(XDG_CACHE_HOME=tmp_path / "a", JAX_COMPILATION_CACHE_DIR="")
    assert not (tmp_path / "a").exists()


def test_a_run_goes_on_where_nothing_can_be_kept(tmp_path):
    (tmp_path / "file").write_text("")
    said = run(XDG_CACHE_HOME=tmp_path / "file").splitlines()
    assert len(said) == 2
    assert said[0].startswith("compiled programs are not kept for the next run: ")
