#!/usr/bin/env bash
# Optuna: create_study(load_if_exists=True) ignores the direction that it is given.
#
# One would guess: a study that exists with direction="minimize" cannot be opened with
# direction="maximize": an error, or a warning.
#
# What happens: the study is opened and minimizes on. A line of the log says that an existing study is
# used; of the direction nothing is said. best_trial is the worst, the sampler
# draws ever more towards it, and the pruner stops the good trials.
#
# Versions: optuna 5.0.0.
#
# Why it matters: a search whose metric was changed from loss to accuracy, or that was first started without
# a direction (minimize is the default), goes on under its old name, as load_if_exists is there for.
#
# What to do: compare study.direction with what you asked for, right after create_study.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check optuna==5.0.0
"$work/env/bin/python" -W error - "$work/journal" <<'EOF'
import logging.handlers
import queue
import sys

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

print("optuna", optuna.__version__)
told = queue.Queue()
logging.getLogger("optuna").addHandler(logging.handlers.QueueHandler(told))  # all that is logged


def opened(direction):
    """The study of one name in one file, in a storage of its own as in a new process."""
    storage = JournalStorage(JournalFileBackend(sys.argv[1]))
    return optuna.create_study(
        storage=storage, study_name="lr", direction=direction, load_if_exists=True
    )


opened("minimize")
study = opened("maximize")
for accuracy in (0.9, 0.1, 0.5):
    study.add_trial(optuna.trial.create_trial(value=accuracy))
print("asked for maximize, got", study.direction.name, "- best of 0.9, 0.1, 0.5:", study.best_value)
lines = [record.getMessage() for record in list(told.queue)]
assert any("existing study" in line for line in lines), lines
assert not any("direction" in line or "minimize" in line for line in lines), lines
assert study.direction.name == "MINIMIZE" and study.best_value == 0.1
EOF
