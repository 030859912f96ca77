"""The config of the tiny runs."""

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from jaxtune import main


def write_config(folder: Path, model: Path, data: Path) -> Path:
    """A config file for a model and data: 3 epochs of 11 steps, dropout on."""
    file = folder / "config.py"
    file.write_text(
        f"""
from jaxtune import default_config

def get_config():
    config = default_config()
    config.model.path = {str(model)!r}
    config.data.path = {str(data)!r}
    config.data.max_length = 16
    config.data.layout = "padded"
    config.train.batch_size = 8
    config.train.log_every_steps = 4
    config.optimizer.learning_rate = 3e-3
    return config
"""
    )
    return file


@pytest.fixture(scope="session")
def flat(once, golden) -> Path:
    """The golden BERT's first layer, with what is below and above: it is compiled in less time."""

    def cut(folder: Path) -> None:
        shutil.copytree(golden / "odd", folder, dirs_exist_ok=True)
        file, config = folder / "model.safetensors", folder / "config.json"
        above = re.compile(r"layer\.[1-9]")
        tensors = {k: v for k, v in load_file(file).items() if not above.search(k)}
        save_file(tensors, file, {"format": "pt"})
        fields = json.loads(config.read_text()) | {"num_hidden_layers": 1}
        config.write_text(json.dumps(fields))

    return once("flat", cut)


@pytest.fixture
def config(tmp_path, flat, tiny_data) -> Path:
    """A config file for a model of one layer and tiny data."""
    return write_config(tmp_path, flat, tiny_data)


@pytest.fixture
def deep_config(tmp_path, golden, tiny_data) -> Path:
    """The same for the golden BERT of three layers."""
    return write_config(tmp_path, golden / "odd", tiny_data)


@pytest.fixture(scope="session")
def finished(once, kept_data, flat) -> Path:
    """The workdir of a run with such a config, made once; not to be changed."""

    def run(folder: Path) -> None:
        config = write_config(folder, flat, kept_data)
        main.main([f"--config={config}", f"--workdir={folder / 'run'}"])

    return once("finished", run) / "run"


@pytest.fixture
def eval_scores(capsys):
    """A function that runs `--mode=eval` and gives the scores in its last line."""

    def scores_of(config, workdir, *more):
        capsys.readouterr()
        main.main([f"--config={config}", f"--workdir={workdir}", "--mode=eval", *more])
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return scores_of
