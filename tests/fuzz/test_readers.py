"""Every reader ends in success or a `UserError`, whatever it is given (see `run.py`)."""

import subprocess
import sys
from pathlib import Path

import pytest

DATA = ("csv", "tsv", "text", "conll", "jsonl", "json", "parquet", "squad", "images")
OTHERS = (
    *("preprocessor", "config", "safetensors", "index", "msgpack", "tokenizer", "vocabulary"),
    *("adapter", "own_adapter", "card", "checkpoint", "log", "run_config", "command"),
)


def fuzz(count, *readers):
    command = [sys.executable, Path(__file__).with_name("run.py"), f"--count={count}", *readers]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    return done


@pytest.mark.parametrize("readers", [DATA, OTHERS], ids=["data", "others"])
def test_mutated_inputs_are_read_or_refused(readers):
    done = fuzz(300, *readers)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(readers)


@pytest.mark.exhaustive
@pytest.mark.parametrize("reader", [*DATA, *OTHERS])
def test_many_mutated_inputs_are_read_or_refused(reader):
    assert fuzz(10_000, reader).returncode == 0
