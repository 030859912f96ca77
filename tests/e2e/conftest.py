"""The config of the tiny runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path, golden, tiny_data) -> Path:
    """A config file for the tiny model and data: 3 epochs of 11 steps, dropout on."""
    file = tmp_path / "config.py"
    file.write_text(
        f"""
from jaxtune import default_config

def get_config():
    config = default_config()
    config.model.path = {str(golden / "odd")!r}
    config.data.path = {str(tiny_data)!r}
    config.data.max_length = 16
    config.data.layout = "padded"
    config.train.batch_size = 8
    config.train.log_every_steps = 4
    config.optimizer.learning_rate = 3e-3
    return config
"""
    )
    return file


@pytest.fixture
def eval_scores():
    """A function that runs `--mode=eval` in a process and gives the scores in its last line."""

    def scores_of(config, workdir, *more):
        command = [f"--config={config}", f"--workdir={workdir}", "--mode=eval", *more]
        done = subprocess.run(
            [sys.executable, "-m", "jaxtune.main", *command],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        return json.loads(done.stdout.strip().splitlines()[-1])

    return scores_of
