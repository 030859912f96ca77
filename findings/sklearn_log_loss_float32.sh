#!/usr/bin/env bash
# scikit-learn: log_loss depends on the dtype of the probabilities, by far more than their rounding.
#
# One would guess: float32 holds 1e-12 well, so log_loss of float32 and of float64 agree to 7 digits.
#
# What happens: probabilities are clipped to the machine epsilon of their dtype, not to its smallest
# number. A true class with 1e-12 costs 27.63 in float64, 15.94 in float32 (clipped to 1.19e-7), and
# 6.93 in float16, where 1e-4 too, which float16 holds, is taken for 9.77e-4. No warning is given.
#
# Versions: scikit-learn 1.9.1, numpy 2.4.6.
#
# Why it matters: a fine-tuned classifier is often sure and wrong. Its mean loss then looks better in half
# precision, and a comparison of two models, or of a temperature, is one of dtypes.
#
# What to do: take log-softmax of the logits in float64 and pick the labels' values; else give float64
# probabilities made in float64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$work/env/bin/python" - <<'EOF'
import math

import numpy as np
import sklearn
from sklearn.metrics import log_loss

print("scikit-learn", sklearn.__version__, "numpy", np.__version__)
expected = {
    ("float64", 1e-12): 27.631,
    ("float32", 1e-12): 15.942,
    ("float16", 1e-4): 6.931,
    ("float64", 1e-4): 9.210,
    ("float32", 1e-4): 9.210,
}
for (dtype, p), loss in expected.items():
    rows = np.array([[1 - p, p]], dtype)
    found = log_loss([1], rows, labels=[0, 1])
    held = float(rows[0, 1])
    print(f"{dtype}: holds {held:.4g}, -log of it is {-math.log(held):.3f}, log_loss is {found:.3f}")
    assert held > 0 and abs(found - loss) < 0.01, (dtype, p, found)
EOF
