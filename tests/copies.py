"""Models of the tests with another config."""

import json
import shutil
from pathlib import Path


def copy_model(folder: Path, copy: Path, fields: dict) -> Path:
    """Copies a model with other fields in its config, those that it has already or not."""
    shutil.copytree(folder, copy)
    file = copy / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return copy
