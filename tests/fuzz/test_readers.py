"""Every reader ends in success or a `UserError`, whatever it is given.

`run.py` reads as many inputs as one likes; these are few.
"""

import subprocess
import sys
from pathlib import Path

import pytest

DATA = (
    *("csv", "tsv", "text", "conll", "jsonl", "json", "parquet", "squad", "images"),
    *("groups", "choices", "queries"),
)
OTHERS = (
    *("preprocessor", "config", "safetensors", "index", "msgpack", "tokenizer", "vocabulary"),
    *("adapter", "own_adapter", "card", "log", "run_config", "command"),
    *("sentence_folder", "retrieval"),
)

SLOW = ("checkpoint",)  # Orbax takes a twentieth of a second for one


def fuzz(count, *readers):
    command = [sys.executable, Path(__file__).with_name("run.py"), f"--count={count}", *readers]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    return done


@pytest.mark.parametrize(
    ("readers", "count"), [((*DATA, *OTHERS), 60), (SLOW, 10)], ids=["quick", "slow"]
)
def test_mutated_inputs_are_read_or_refused(readers, count):
    done = fuzz(count, *readers)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(readers)
