#!/usr/bin/env bash
# onnx.save(..., save_as_external_data=True) takes the weights out of the model in memory.
#
# One would guess: saving leaves the model as it was: it can be saved once more elsewhere, or given to
# ONNX Runtime as bytes.
#
# What happens: the initializers of the object that was saved lose their raw_data, and point to the file.
# A second onnx.save without options, to another folder, succeeds and writes a file of some hundred bytes
# without any weight, which can be read only where that folder has the data file too. save_model of a deep
# copy leaves the model whole.
#
# Versions: onnx 1.23.2, numpy 2.4.6.
#
# Why it matters: "export, then keep a copy in the archive" archives a file without weights, with no error
# until somebody needs it; in the first folder all is well.
#
# What to do: save a deep copy, or load the file anew before the next use.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
"$work/env/bin/python" - "$work" <<'EOF'
import copy
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

print("onnx", onnx.__version__)
folders = [pathlib.Path(sys.argv[1]) / name for name in ("copied", "first", "archive")]
for folder in folders:
    folder.mkdir()
weight = numpy_helper.from_array(np.arange(4096, dtype=np.float32), "w")
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4096]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", *([e] for e in ends), [weight])
model = helper.make_model(graph)
sizes = [len(model.graph.initializer[0].raw_data)]
for folder, saved in zip(folders, (copy.deepcopy(model), model), strict=False):
    onnx.save(saved, folder / "model.onnx", save_as_external_data=True, location="weights")
    sizes.append(len(model.graph.initializer[0].raw_data))
onnx.save(model, folders[2] / "model.onnx")
print("bytes of the weight in memory: before, after saving a deep copy, after saving:", sizes)
print("in the first folder:", sorted((f.name, f.stat().st_size) for f in folders[1].iterdir()))
print("in the archive:", sorted((f.name, f.stat().st_size) for f in folders[2].iterdir()))
assert sizes == [16384, 16384, 0]
assert [f.name for f in folders[2].iterdir()] == ["model.onnx"]
assert (folders[2] / "model.onnx").stat().st_size < 1000
assert onnx.load(folders[1] / "model.onnx").graph.initializer[0].raw_data
try:
    onnx.load(folders[2] / "model.onnx")
    raise SystemExit("the archive can be loaded now")
except Exception as error:
    print("loading the archive:", type(error).__name__)
EOF
