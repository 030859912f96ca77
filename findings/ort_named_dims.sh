#!/usr/bin/env bash
# ONNX Runtime: two inputs that share a named dimension may differ in it; one row is spread over all.
#
# One would guess: where input_ids and attention_mask are both declared [batch, tokens], a call with 4
# rows of one and 1 row of the other is refused, as it is where the dimension is the number 4.
#
# What happens: a name is not compared between inputs. The operators broadcast, so the mask of one row is
# taken for every row, and the outputs are of the right shape. Fixed dimensions are checked.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6.
#
# Why it matters: an exported model whose caller forgets to grow the mask, or passes that of the last
# request, pools over the wrong tokens: other numbers, no error.
#
# What to do: compare the shapes of the inputs before session.run.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$work/env/bin/python" - <<'EOF'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

print("onnxruntime", ort.__version__, "onnx", onnx.__version__)


def mean_of_real_tokens(dims):
    """A session: sum(states * mask) / sum(mask), over the tokens."""
    names = ("states", "mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in names]
    output = helper.make_tensor_value_info("mean", TensorProto.FLOAT, dims[:1])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Mul", ["states", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "axis"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["mean"]),
    ]
    graph = helper.make_graph(nodes, "pool", inputs, [output], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


states = np.arange(12, dtype=np.float32).reshape(4, 3)
mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]], np.float32)
right = states * mask
right = right.sum(1) / mask.sum(1)
named = mean_of_real_tokens(["batch", "tokens"])
whole, one = (named.run(None, {"states": states, "mask": m})[0] for m in (mask, mask[:1]))
print("4 rows, mask of 4 rows:", whole)
print("4 rows, mask of 1 row: ", one)
assert np.allclose(whole, right) and np.allclose(one, states.mean(1))
assert one.shape == whole.shape and not np.allclose(one, whole)
try:
    mean_of_real_tokens([4, 3]).run(None, {"states": states, "mask": mask[:1]})
    raise SystemExit("fixed dimensions are no longer checked")
except Exception as error:
    print("declared [4, 3]:", str(error).splitlines()[0][:90])
EOF
