"""The config of the tiny runs."""

from pathlib import Path

import pytest


@pytest.fixture
def config(tmp_path, golden, tiny_data) -> Path:
    """A config file for the tiny model and data: 3 epochs of 11 steps, dropout on."""
    file = tmp_path / "config.py"
    file.write_text(
        f"""
from jaxtune.config import default_config

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
