"""What a person meets before the first line runs: how the package is imported, and on what."""

import ast
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import hatchling.build
import pytest

import jaxtune
from jaxtune.run import huge_pages, summary

ROOT = Path(__file__).parents[1]

FRESH = """
import sys, time
start = time.process_time()
import jaxtune
seconds = time.process_time() - start
heavy = {"jax", "numpy", "flax", "ml_collections"} & sys.modules.keys()
assert not heavy, heavy
assert seconds < 0.1, seconds
assert {"UserError", "default_config"} <= set(dir(jaxtune)) and jaxtune.__version__
import jaxtune.__main__  # what the process knows that only starts itself again
assert not {"jax", "numpy", "argparse", "jaxtune.run.config"} & sys.modules.keys()
from jaxtune import UserError, default_config
assert default_config().seed == 0
assert jaxtune.UserError is UserError
assert "jax" not in sys.modules
import jaxtune.run.train  # what the first table of a run waits for
late = {"orbax", "transformers", "datasets", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib"}
late |= {"rich.progress", "tokenizers", "tensorstore", "seqeval"}
assert not late & sys.modules.keys(), late & sys.modules.keys()
"""

PREDICTION = """
import sys
import jaxtune.predict, jaxtune.run.beside, jaxtune.run.packed, jaxtune.run.saved
import jaxtune.run.predict_file, jaxtune.training.program_cache
unused = {"optax", "orbax", "tensorstore", "transformers", "datasets", "pyarrow", "pandas"}
unused |= {"scipy", "sklearn", "matplotlib", "huggingface_hub", "rich.progress", "flax.nnx"}
unused |= {f"jaxtune.{name}" for name in ("frozen", "analysis", "studies", "reporting")}
unused |= {f"jaxtune.run.{name}" for name in ("train", "prepare", "setup", "scorer", "checkpoint")}
unused |= {f"jaxtune.training.{name}" for name in ("step", "optimizers", "sharded_step")}
assert not unused & sys.modules.keys(), unused & sys.modules.keys()
"""


def test_prediction_imports_nothing_that_only_training_needs():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", PREDICTION], check=True, env=environment)


def test_the_import_is_quick_and_brings_no_library():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FRESH], check=True, env=environment)


def test_public_names_are_those_of_the_stub():
    stub = ast.parse((ROOT / "jaxtune" / "__init__.pyi").read_text())
    said = [(node.module, alias.name) for node in stub.body for alias in _aliases(node)]
    assert {name for _, name in said} == set(jaxtune.__all__)
    for module, name in said:
        home = importlib.import_module("jaxtune" + (f".{module}" if module else ""))
        assert getattr(jaxtune, name) is getattr(home, name)


def _aliases(node):
    return node.names if isinstance(node, ast.ImportFrom) else []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="trian"):
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


ELSEWHERE = """
import sys
from importlib import metadata
from pathlib import Path
import jaxtune
from jaxtune.run.config import load_config
from jaxtune.run.config_files import named_configs
assert Path(jaxtune.__file__).is_relative_to(Path.cwd()), jaxtune.__file__
assert sorted(named_configs()) == sys.argv[1].split(","), named_configs()
assert load_config("agnews", {}).train.batch_size == 24
model = Path(load_config("cifar10", {}).model.path)
assert model.is_relative_to(Path.cwd()) and (model / "config.json").is_file(), model
(command,) = metadata.entry_points(group="console_scripts", name="jaxtune")
assert metadata.version("jaxtune") == jaxtune.__version__
sys.argv = ["jaxtune", "--version"]
try:
    command.load()()
except SystemExit as end:
    assert end.code == 0, end.code
assert "jax" not in sys.modules
"""


def test_a_wheel_has_all_that_the_package_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    name = hatchling.build.build_wheel(str(tmp_path))
    wheel = zipfile.ZipFile(tmp_path / name)
    packed = set(wheel.namelist())
    ours = {
        str(file.relative_to(ROOT)): file.read_bytes()
        for file in (ROOT / "jaxtune").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    } | {
        f"jaxtune/{file.relative_to(ROOT)}": file.read_bytes()
        for file in (ROOT / "configs").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert "jaxtune/py.typed" in ours
    assert {name for name in packed if ".dist-info/" not in name} == ours.keys()
    assert all(wheel.read(name) == content for name, content in ours.items())
    wheel.extractall(tmp_path / "site")
    names = sorted(file.stem for file in (ROOT / "configs").glob("*.py"))
    own = {"PYTHONPATH": str(tmp_path / "site"), "GLIBC_TUNABLES": huge_pages.TUNABLE}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, ",".join(names)],
        check=True,
        cwd=tmp_path / "site",
        env=os.environ | own,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout == f"jaxtune {jaxtune.__version__}\n"
