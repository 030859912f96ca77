"""A command starts again with huge pages once, and only where that is of use."""

import os
import subprocess
import sys

import pytest

from jaxtune.run import huge_pages

SCRIPT = """
import gc, os, sys
from jaxtune.run.cli import start_command
print("start", os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
start_command(lambda argv: print("end", argv, gc.get_threshold()[0] > 10_000, flush=True))
"""


@pytest.fixture
def restarted(monkeypatch, tmp_path):
    """A function: what the system says, the environment -> the command that is started, or None."""

    def run(says, tunables, libc="glibc"):
        file = tmp_path / "enabled"
        file.write_text(says)
        monkeypatch.setattr(huge_pages, "_OFFERED", file)
        monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: (libc, ""))
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        if tunables:
            monkeypatch.setenv("GLIBC_TUNABLES", tunables)
        found = []
        monkeypatch.setattr(huge_pages.os, "execv", lambda *command: found.append(command))
        huge_pages.restart_with_huge_pages()
        return found, os.environ.get("GLIBC_TUNABLES")

    return run


OFFERED = "always [madvise] never\n"


def test_it_asks_where_the_system_gives_to_who_asks(restarted):
    found, tunables = restarted(OFFERED, None)
    assert tunables == "glibc.malloc.hugetlb=1"
    ((program, arguments),) = found
    assert program == sys.executable
    assert arguments[1:] == sys.orig_argv[1:]


def test_other_tunables_stay(restarted):
    _, tunables = restarted(OFFERED, "glibc.malloc.tcache_count=1")
    assert tunables == "glibc.malloc.tcache_count=1:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("says", "tunables", "libc"),
    [
        (OFFERED, "glibc.malloc.hugetlb=0", "glibc"),
        ("[always] madvise never\n", None, "glibc"),
        ("always madvise [never]\n", None, "glibc"),
        (OFFERED, None, "musl"),
    ],
)
def test_it_lets_be(restarted, says, tunables, libc):
    assert restarted(says, tunables, libc) == ([], tunables)


def test_a_command_runs_once(tmp_path):
    file = tmp_path / "command.py"
    file.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    command = [sys.executable, str(file), "--a=1", "b c"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "end ['--a=1', 'b c'] True"
    assert lines[-2].endswith("['--a=1', 'b c']")
    assert len(lines) <= 3
