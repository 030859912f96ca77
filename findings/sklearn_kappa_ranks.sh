#!/usr/bin/env bash
# scikit-learn: quadratic kappa measures distances between places in a list, not between ratings.
#
# One would guess: cohen_kappa_score(weights="quadratic") of ratings weighs an error by the squared
# difference of the two ratings.
#
# What happens: it weighs by the difference of their places among the labels that occur in these rows.
# Where only 1, 2 and 5 occur, 2 and 5 are neighbours, as far apart as 1 and 2. One more row with a 3,
# rated rightly, changes what a 2 for a 5 costs. Nothing is said.
#
# Versions: scikit-learn 1.9.1, numpy 2.4.6.
#
# Why it matters: it is the metric of essay and review ratings. A small validation set lacks a rating that
# the test set has, so that the two kappas are of two scales, and early stopping follows the wrong one.
#
# What to do: pass labels= with every rating of the scale, equally spaced, in order.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$work/env/bin/python" - <<'EOF'
import numpy as np
import sklearn
from sklearn.metrics import cohen_kappa_score

print("scikit-learn", sklearn.__version__)
true, near, far = [1, 1, 2, 2, 5, 5], [1, 2, 2, 2, 5, 5], [1, 1, 2, 5, 5, 5]


def by_value(one, other):
    """1 - the mean squared difference, over that of all pairs."""
    one, other = np.array(one, float), np.array(other, float)
    return 1 - ((one - other) ** 2).mean() / ((one[:, None] - other) ** 2).mean()


for name, said in (("a 1 for a 2", near), ("a 2 for a 5", far)):
    places = cohen_kappa_score(true, said, weights="quadratic")
    whole = cohen_kappa_score(true, said, weights="quadratic", labels=[1, 2, 3, 4, 5])
    print(f"{name}: {places:.4f}; with labels 1 to 5 {whole:.4f}; by value {by_value(true, said):.4f}")
    assert abs(whole - by_value(true, said)) < 1e-9, "labels= no longer gives differences of ratings"
    assert abs(places - whole) > 0.02, "absent ratings count now"
EOF
