"""What a plain `pip install jaxtune` brings is enough, and what it lacks is asked for by name.

The packages of a plain install are those that pyproject.toml names, and those that these ask for in
turn; all others are hidden from the process of the test.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from conftest import write_table
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jaxtune import predict
from jaxtune.core.errors import UserError
from jaxtune.data.sources.locate import load_tables
from jaxtune.run.cli import run_command
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.saved import open_saved
from jaxtune.settings.data import SourceSettings

ROOT = Path(__file__).parents[2]


def brought(requirements):
    """The names of packages that these requirements bring, with all that they need."""
    waiting, seen = [*map(Requirement, requirements)], set()
    while waiting:
        asked = waiting.pop()
        for extra in ("", *asked.extras):
            key = canonicalize_name(asked.name), extra
            if key in seen:
                continue
            seen.add(key)
            for needed in map(Requirement, metadata.requires(asked.name) or ()):
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in seen}


def absent_modules():
    """The modules that are installed here and that a plain install has not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    plain = brought(project["dependencies"]) | {"jaxtune"}
    found = metadata.packages_distributions().items()
    return {module for module, names in found if not {*map(canonicalize_name, names)} & plain}


RUN = """
import importlib.machinery, json, sys

absent, commands = set(json.loads(sys.argv[1])), json.loads(sys.argv[2])

class Plain(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, *where):
        return None if name.partition(".")[0] in absent else super().find_spec(name, *where)

finders = sys.meta_path
finders[finders.index(importlib.machinery.PathFinder)] = Plain

from jaxtune import __main__ as console
from jaxtune.run.cli import run_command

for command in commands:
    assert run_command(console.run, command) == 0, command
"""


def test_the_main_commands_need_no_more(config, flat, tiny_data, tmp_path):
    absent = absent_modules()
    assert {"transformers", "datasets", "pyarrow", "pandas", "sklearn", "matplotlib"} <= absent
    assert not {"jax", "flax", "scipy", "tokenizers", "PIL", "google"} & absent
    new = write_table(tmp_path / "new.csv", [("this film is good",)], ("text",))
    data, model = tiny_data / "train.csv", tmp_path / "run" / "model"
    commands = [
        ["new", str(data), f"--model={flat}", "--output=mine.py"],
        ["train", f"--config={config}", "--workdir=run"],  # which ends with a report
        ["predict", f"--model={model}", f"--input={new}", "--output=labels.csv"],
        ["export", f"--model={model}", "--format=stablehlo", "--output=model.stablehlo"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(sorted(absent)), json.dumps(commands)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "labels.csv").read_text().startswith("text,label")
    for name in ("mine.py", "run/report.html", "model.stablehlo"):
        assert (tmp_path / name).stat().st_size


@pytest.fixture
def hide(monkeypatch):
    """A function: packages that are as if they were not installed."""

    def absent(*packages):
        found = importlib.util.find_spec
        monkeypatch.setattr(
            "jaxtune.core.extras.importlib.util.find_spec",
            lambda name: None if name in packages else found(name),
        )

    return absent


def test_a_hub_dataset_asks_for_its_extra(hide):
    hide("datasets")
    with pytest.raises(UserError, match=r'someone/data .* needs datasets: .*"jaxtune\[datasets\]"'):
        load_tables(SourceSettings("someone/data"))


def test_a_parquet_file_asks_for_its_extra(hide, flat, tmp_path, capsys):
    hide("pyarrow")
    (tmp_path / "new.parquet").write_bytes(b"PAR1")
    flags = [f"--model={flat}", f"--input={tmp_path}/new.parquet", f"--output={tmp_path}/x.csv"]
    assert run_command(predict.main, flags) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/new.parquet" in told
    assert 'needs pyarrow: pip install "jaxtune[parquet]" brings it' in told


@pytest.fixture
def slow(flat, tmp_path):
    """A model folder whose tokenizer is in `vocab.txt` alone, and whose weights cannot be read."""
    folder = tmp_path / "slow"
    shutil.copytree(flat, folder)
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").write_bytes(b"")
    return folder


ASKS = r'slow has no tokenizer.json: its vocab.txt needs transformers: .*"jaxtune\[transformers\]"'


def test_a_slow_tokenizer_asks_for_its_extra_before_weights_are_read(hide, slow):
    hide("transformers")
    with pytest.raises(UserError, match=ASKS):
        open_saved(slow)


def test_so_does_a_run_before_data_are_read(hide, slow, config, tmp_path):
    hide("transformers")
    (tmp_path / "bad.csv").write_text("no, such\ncolumns\n")
    fields = {"model.path": str(slow), "data.path": str(tmp_path / "bad.csv")}
    with pytest.raises(UserError, match=ASKS):
        prepare(load_config(str(config), fields), Report(quiet=True))
