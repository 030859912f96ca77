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


def make_flat(folder: Path, copy: Path) -> Path:
    """Copies a model of one layer, or of one in each of its stages."""
    known = json.loads((folder / "config.json").read_text())
    fields = {name: 1 for name in ("num_hidden_layers", "n_layers", "n_layer") if name in known}
    if "layer_types" in known:
        fields["layer_types"] = known["layer_types"][:1]
    if "depths" in known:
        fields["depths"] = [1] * len(known["depths"])
    return copy_model(folder, copy, fields)
