#!/usr/bin/env bash
# seqeval: scheme= without mode="strict" is ignored, and so is mode="strict" without scheme=.
#
# One would guess: f1_score(y, p, scheme=IOB2) scores by IOB2, where I-PER after O begins no entity; and
# mode="strict" scores strictly, by a scheme that it finds or with an error that asks for one.
#
# What happens: in f1_score (and precision_score, recall_score) either argument alone changes nothing: the
# score is the lenient one of conlleval, by which I-PER after O begins an entity, 1.0 where strict IOB2
# gives 0.0. classification_report ignores scheme= alone as well, but obeys mode="strict" alone: so the F1
# in the report and f1_score, with the same arguments, are 0.0 and 1.0.
#
# Versions: seqeval 1.2.2, scikit-learn 1.9.1, numpy 2.4.6.
#
# Why it matters: a script that names a scheme looks strict in review. A tagger whose B- is wrong but for
# its prefix is not punished, and its F1 is compared with a strict one of somebody else.
#
# What to do: always give both, mode="strict" and scheme=IOB2 (or IOBES, ...), or neither.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check seqeval==1.2.2 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$work/env/bin/python" - <<'EOF'
import importlib.metadata
import warnings

from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

warnings.simplefilter("ignore")  # of a precision without predictions
print("seqeval", importlib.metadata.version("seqeval"))
true, said = [["O", "B-PER", "I-PER", "O"]], [["O", "I-PER", "I-PER", "O"]]
expected = [
    ({}, 1.0, 1.0),
    ({"scheme": IOB2}, 1.0, 1.0),
    ({"mode": "strict"}, 1.0, 0.0),
    ({"mode": "strict", "scheme": IOB2}, 0.0, 0.0),
]
for options, score, reported in expected:
    found = f1_score(true, said, **options)
    parts = [score_of(true, said, **options) for score_of in (precision_score, recall_score)]
    report = classification_report(true, said, output_dict=True, **options)["PER"]["f1-score"]
    print(f"{', '.join(options) or 'neither'}: f1_score {found}, classification_report {report}")
    assert (found, *parts, report) == (score, score, score, reported), options
EOF
