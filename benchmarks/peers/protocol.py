"""What the workers of benchmarks/throughput.py share: the job, the rows, commands and answers.

A worker is started as `python WORKER.py JOB.json`. It loads its model, takes one step and says that
it is ready; then it waits for commands on standard input and answers each with one line of JSON on
standard output:

    begin 0   start anew from the first epoch, whatever has been remembered
    train N   train on the next N examples
    eval N    predict the N rows of evaluation

Needs NumPy alone, so that it can be imported in the environment of any peer.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MEGABATCH = 50  # batches that are sorted by length together, as in transformers


class Job(NamedTuple):
    """What a worker is asked to do; the names are those of the JSON file.

    Attributes:
      mode: `train` or `eval`.
      rows: file of `Rows`, of `train` and of `eval`.
      model: a folder in the transformers layout.
      from_scratch: of the folder only config.json is read.
      dtype: of the products, `float32` or `bfloat16`; what is trained is kept in float32.
      strategy: `full`, `last_layers` or `head`.
      num_layers: of `last_layers`.
      batch_size: examples a step.
      eval_batch_size: examples a step of evaluation.
      learning_rate: of AdamW; the gradient's norm is clipped to 1 and the rate falls linearly.
      max_length: tokens that the longest row may have.
      device: `cpu` or `gpu`.
      restarts: whether `begin` will be asked for.
      options: of one peer, by name.
      config: of jaxtune, a config file.
      overrides: of jaxtune, by the name of the field.
    """

    mode: str
    rows: str
    model: str
    from_scratch: bool
    dtype: str
    strategy: str
    num_layers: int
    batch_size: int
    eval_batch_size: int
    learning_rate: float
    max_length: int
    device: str
    restarts: bool
    options: dict[str, str]
    config: str
    overrides: dict[str, str]


class Rows(NamedTuple):
    """n tokenized rows, one after the other: row i is input_ids[offsets[i] : offsets[i + 1]]."""

    input_ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.offsets)

    def row(self, i: int) -> np.ndarray:
        """The tokens of row i."""
        return self.input_ids[self.offsets[i] : self.offsets[i + 1]]

    def padded(
        self, indices: np.ndarray, length: int, dtype: Any = np.int64
    ) -> dict[str, np.ndarray]:
        """Rows as `input_ids` and `attention_mask` [b t], with `labels` [b]."""
        ids = np.zeros((len(indices), length), dtype)
        mask = np.zeros((len(indices), length), dtype)
        for k, i in enumerate(indices):
            tokens = self.row(i)
            ids[k, : len(tokens)] = tokens
            mask[k, : len(tokens)] = 1
        labels = self.labels[indices].astype(dtype)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def read_rows(file: str, split: str) -> Rows:
    """The rows of `train` or `eval`."""
    with np.load(file) as arrays:
        return Rows(*(arrays[f"{split}_{name}"] for name in Rows._fields))


def sorted_epochs(lengths: np.ndarray, batch_size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Batches of like lengths without end: each epoch shuffled, then sorted within 50 batches."""
    rng = np.random.default_rng(seed)
    while True:
        order, found = rng.permutation(len(lengths)), []
        for start in range(0, len(order), MEGABATCH * batch_size):
            part = order[start : start + MEGABATCH * batch_size]
            part = part[np.argsort(-lengths[part], kind="stable")]
            found += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        yield from (found[i] for i in rng.permutation(len(found)))


class Counter:
    """Adds up what a worker has done since the last answer."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.examples = self.computed_tokens = 0
        self.tokens: Any = 0

    def add(self, examples: int, tokens: Any, computed_tokens: int) -> None:
        """One batch; `tokens` may be an array on a device, which is fetched with the answer."""
        self.examples += examples
        self.tokens = self.tokens + tokens
        self.computed_tokens += computed_tokens

    def take(self) -> dict[str, int]:
        """The sums; begins anew."""
        found = {
            "examples": self.examples,
            "tokens": int(self.tokens),
            "computed_tokens": self.computed_tokens,
        }
        self.__init__()
        return found


class Channel:
    """Commands in, one line of JSON out for each; what libraries print goes to standard error."""

    def __init__(self) -> None:
        """Takes standard output for itself."""
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def answer(self, **values: Any) -> None:
        """One line."""
        print(json.dumps(values), file=self._out, flush=True)

    def command(self) -> tuple[str, int]:
        """Waits for the next one; ends the process when there are no more."""
        line = sys.stdin.readline()
        if not line.strip():
            sys.stderr.flush()
            os._exit(0)  # no library's threads or exit handlers keep the machine busy
        name, count = line.split()
        return name, int(count)

    def serve(self, **commands: Callable[[int], dict[str, Any]]) -> None:
        """Answers commands by the functions of their names."""
        while True:
            name, count = self.command()
            self.answer(**commands[name](count))


def start() -> tuple[Job, Channel]:
    """The job whose file is the first argument, and the way to answer."""
    channel = Channel()
    return Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), channel
