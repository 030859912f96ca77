"""Jobs on simulated devices, in processes of their own: a process counts its devices once."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from copies import copy_model

ROOT, WORKER = Path(__file__).parents[2], Path(__file__).with_name("worker.py")


class Outcome(NamedTuple):
    """What a job wrote."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]

    @property
    def losses(self) -> np.ndarray:
        return self.arrays["losses"]

    @property
    def params(self) -> dict[str, np.ndarray]:
        return {name: leaf for name, leaf in self.arrays.items() if name.startswith("params/")}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def environment(devices: int, process: str | None = None) -> dict[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return env if process is None else env | {"PROCESSES": process}


def run_jobs(folder: Path, jobs: list[dict[str, Any]], devices: int, processes: int = 1) -> None:
    """Runs jobs on `devices` simulated devices in each of some processes."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    port, started = free_port(), []
    for i in range(processes):
        process = None if processes == 1 else f"{i},{processes},{port}"
        started.append(
            subprocess.Popen(
                [sys.executable, str(WORKER), str(file), str(folder)],
                env=environment(devices, process),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=600)[0] for process in started]
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output[-5000:]


def read(folder: Path, name: str) -> Outcome:
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    return Outcome(arrays, json.loads((folder / f"{name}.json").read_text()))


@pytest.fixture(scope="session")
def wide_model(tiny_families, tmp_path_factory) -> Path:
    """A BERT that eight devices can share: eight heads, and widths that are multiples of 8."""
    config = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 8}
    config |= {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
    return copy_model(tiny_families["bert"], tmp_path_factory.mktemp("wide") / "bert", config)


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """83 rows for training and 61 for validation, of 3 to 14 words: no multiple of anything."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    words = ["the", "a", "cat", "dog", "film", "is", "was", "good", "bad", "so", "ran", "sat"]
    for split, count in (("train", 83), ("validation", 61)):
        rows = []
        for _ in range(count):
            text = " ".join(rng.choice(words, rng.integers(3, 15)))
            label = "good" if text.count("good") > text.count("bad") else "bad"
            rows.append({"text": text, "label": "so" if " so" in text else label})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="session")
def config(wide_model, texts, tmp_path_factory) -> str:
    """A config file: full fine-tuning of a model drawn from the seed, dropout on, packed."""
    from jaxtune.run.config import default_config

    config = default_config()
    config.model.path, config.model.from_scratch = str(wide_model), True
    config.data.path, config.data.max_length = str(texts), 24
    config.data.layout = "padded"
    config.train.batch_size = config.train.eval_batch_size = 16
    config.train.num_steps = 20
    config.optimizer.learning_rate = 3e-3
    file = tmp_path_factory.mktemp("config") / "config.json"
    file.write_text(config.to_json())
    return str(file)


@pytest.fixture(scope="session")
def job(config):
    """A function: name, overrides, further fields -> a job for `run_jobs`."""

    def make(name: str, overrides: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        texts = {key: str(value) for key, value in (overrides or {}).items()}
        return {"name": name, "config": config, "overrides": texts} | fields

    return make


def mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> dict[str, Any]:
    return {"parallel.data": data, "parallel.fsdp": fsdp, "parallel.tensor": tensor}


@pytest.fixture(scope="session")
def run_on(once):
    """A function: jobs, devices, processes -> outcomes by the names of the jobs.

    What one of several test processes has run is not run again by another.
    """

    def run(jobs: list[dict[str, Any]], devices: int, processes: int = 1) -> dict[str, Outcome]:
        key = json.dumps([{**job, "config": ""} for job in jobs]) + f"{devices} {processes}"
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        folder = once(name, lambda folder: run_jobs(folder, jobs, devices, processes))
        return {job["name"]: read(folder, job["name"]) for job in jobs}

    return run


class Start(NamedTuple):
    """What a test needs to start processes of its own."""

    root: Path
    free_port: Any
    environment: Any


@pytest.fixture(scope="session")
def start() -> Start:
    return Start(ROOT, free_port, environment)
