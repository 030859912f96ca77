"""What a person meets before the first line runs: how the package is imported, and on what."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxtune
from jaxtune.run import summary

ROOT = Path(__file__).parents[1]

FRESH = """
import sys, time
start = time.process_time()
import jaxtune
seconds = time.process_time() - start
heavy = {"jax", "numpy", "flax", "ml_collections"} & sys.modules.keys()
assert not heavy, heavy
assert seconds < 0.1, seconds
assert {"UserError", "default_config", "__version__"} <= set(dir(jaxtune))
from jaxtune import UserError, default_config
assert default_config().seed == 0
assert jaxtune.UserError is UserError
assert "jax" not in sys.modules
"""


def test_the_import_is_quick_and_brings_no_library():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FRESH], check=True, env=environment)


@pytest.mark.parametrize("name", jaxtune.__all__)
def test_a_public_name_is_that_of_its_module(name):
    module = importlib.import_module(jaxtune._HOMES[name])
    assert getattr(jaxtune, name) is getattr(module, name)


def test_public_names_are_said_once():
    assert sorted(jaxtune._HOMES) == sorted(jaxtune.__all__)
    tree = ast.parse((ROOT / "jaxtune" / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert typed == jaxtune._HOMES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = jaxtune.trian


UNIX_ONLY = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def test_no_module_of_unix_alone_is_imported_at_the_top():
    found = [
        f"{file}: {name}"
        for file in sorted((ROOT / "jaxtune").rglob("*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        for name in _imported(node)
        if name in UNIX_ONLY
    ]
    assert found == []


def _imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []


def test_a_system_that_tells_no_memory(monkeypatch, tmp_path):
    assert summary.peak_memory_bytes() > 1e6
    monkeypatch.setitem(sys.modules, "resource", None)
    assert summary.peak_memory_bytes() is None
    results = {
        **{"scores": {}, "best_step": 1, "steps": 1, "examples_per_second": None},
        **{"compiled_train_shapes": [], "compiled_eval_shapes": [], "compile_seconds": 1.0},
        **{"seconds": 2.0, "peak_memory_bytes": None},
    }
    assert ("memory", "unknown") in summary.end_rows(results, tmp_path)
