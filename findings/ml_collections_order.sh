#!/usr/bin/env bash
# ml_collections: a ConfigDict iterates by the alphabet, its JSON in the order of insertion.
#
# One would guess: ConfigDict keeps the order in which fields were written, as dict does.
#
# What happens: keys(), values(), items(), iteration, ** and to_dict() go through the names sorted as texts:
# of the fields "0" to "11", "10" comes before "2", and the steps resize, crop, flip come as crop, flip,
# resize. to_json() alone keeps the order of insertion, so that what is logged is not what was run.
#
# Versions: ml_collections 1.1.0.
#
# Why it matters: class names by id, mixtures of data with weights, and chains of augmentations are written
# as mappings in configs. list(config.id2label.values()) has the wrong name at most places from the third
# on, where there are more than ten classes.
#
# What to do: write what has an order as a tuple, of pairs where need be.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check ml_collections==1.1.0
"$work/env/bin/python" - <<'EOF'
import importlib.metadata
import json

from ml_collections import ConfigDict

print("ml_collections", importlib.metadata.version("ml_collections"))
steps = {"resize": 256, "crop": 224, "flip": 0.5}
config = ConfigDict({"steps": steps, "id2label": {str(i): f"class {i}" for i in range(12)}})
ways = {
    "iteration": list(config.steps),
    "items()": [name for name, _ in config.steps.items()],
    "**": list(dict(**config.steps)),
    "to_dict()": list(config.steps.to_dict()),
    "to_json()": list(json.loads(config.steps.to_json())),
}
for way, names in ways.items():
    print(f"{way}: {names}")
    assert names == (list(steps) if way == "to_json()" else sorted(steps)), way
labels = list(config.id2label.values())
print("id2label.values():", labels)
assert labels[:4] == ["class 0", "class 1", "class 10", "class 11"]
EOF
