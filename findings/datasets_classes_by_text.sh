#!/usr/bin/env bash
# datasets: ClassLabel casts of numbers. Order by text; numbers kept where the names say otherwise.
#
# One would guess: class_encode_column of the ratings 1 to 10 numbers them 0 to 9 in that order; the
# numbers 1 and 2 cast to ClassLabel(names=["1", "2", "3"]) become the classes "1" and "2"; and a cast
# from ClassLabel(["no", "yes"]) to ClassLabel(["yes", "no"]) keeps each row's class.
#
# What happens: (a) classes are ordered as texts: 1, 10, 2, ..., so that 10 lies between 1 and 2. (b) A
# number is taken for an id, not for a name: rating 1 becomes the class "2", and rating 3 the id 3, of which
# there is no class; the cast lets it through. (c) Ids are kept, so each "no" is a "yes". A column of texts
# is cast by name.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1.
#
# Why it matters: (a) breaks whatever reads an id as a rank (ordinal losses, quadratic kappa); (b) and
# (c) are wrong labels, with an accuracy that looks like a poor model's.
#
# What to do: cast numbers to texts first; give the names in their order yourself; from one ClassLabel to
# another use align_labels_with_mapping, or cast by way of int2str.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
HF_HOME="$work/home" HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import datasets
from datasets import ClassLabel, Dataset, Features

datasets.disable_progress_bars()
print("datasets", datasets.__version__)


def classes(rows):
    """The class that each row says it has."""
    return [rows.features["y"].int2str(i) for i in rows["y"]]


def of(*names):
    return Features({"y": ClassLabel(names=list(names))})


ratings = Dataset.from_dict({"y": list(range(1, 11))}).class_encode_column("y")
print("(a) ratings 1 to 10, class_encode_column:", ratings.features["y"].names)
assert ratings.features["y"].names == ["1", "10", *map(str, range(2, 10))]

numbers = Dataset.from_dict({"y": [1, 2, 1]}).cast(of("1", "2", "3"))
print("(b) numbers 1, 2, 1 as ClassLabel(1, 2, 3):", classes(numbers))
assert classes(numbers) == ["2", "3", "2"]
beyond = Dataset.from_dict({"y": [1, 3]}).cast(of("1", "2", "3"))
print("    numbers 1, 3: ids", beyond["y"][:])
assert beyond["y"][:] == [1, 3]
texts = Dataset.from_dict({"y": ["1", "2", "1"]}).cast(of("1", "2", "3"))
print("    the same as texts:", classes(texts))
assert classes(texts) == ["1", "2", "1"]

answers = Dataset.from_dict({"y": ["no", "yes", "no"]}).cast(of("no", "yes"))
turned = answers.cast(of("yes", "no"))
print("(c)", classes(answers), "cast to the names in the other order:", classes(turned))
assert classes(answers) == ["no", "yes", "no"]
assert classes(turned) == ["yes", "no", "yes"]
aligned = answers.align_labels_with_mapping({"yes": 0, "no": 1}, "y")
print("    align_labels_with_mapping:", aligned.features["y"].names, classes(aligned))
assert classes(aligned) == classes(answers)
EOF
