"""Embeddings beside sentence-transformers on torch: scores, texts a second, and memory.

    python benchmarks/embedding.py score --model=MINILM --data=STSB --peer=PYTHON [--seeds=3]
    python benchmarks/embedding.py speed --model=MINILM --data=STSB --peer=PYTHON
    python benchmarks/embedding.py speed --model=MINILM --squad=SQUAD.json --peer=PYTHON
    python benchmarks/embedding.py memory --model=MINILM --data=STSB

`score`: one epoch of CoSENT by configs/sts_embedding.py, and the same rows and recipe there;
Spearman on the test split. `speed`: training on the same rows, a part of them in turn (on an idle
machine); pairs of STS-B with CoSENT, or questions with their contexts, whose lengths differ much,
with the ranking loss. `memory`: what the compiled step needs beside its arguments at 1,024 pairs in
16 microbatches, over that at 64 pairs in one. PYTHON is that of an environment with torch and
sentence-transformers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import jaxtune as jt
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text import group_tables
from jaxtune.run import stages
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare

CONFIG = "configs/sts_embedding.py"
PEERS = Path(__file__).parent / "peers"
TURN = 512  # texts of a turn


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("score", "speed", "memory"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default="")
    parser.add_argument("--squad", type=Path)
    parser.add_argument("--peer", default="")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--config", nargs="*", default=[], help="NAME=VALUE of the recipe")
    arguments = parser.parse_args()
    fields = dict(text.split("=", 1) for text in arguments.config)
    own = {"data.path": arguments.data} if arguments.data else {}
    overrides = {"model.path": arguments.model, "train.trackers": ""} | own | fields
    with tempfile.TemporaryDirectory() as folder:
        {"score": score, "speed": speed, "memory": memory}[arguments.kind](
            arguments, overrides, Path(folder)
        )


def score(arguments: argparse.Namespace, overrides: dict[str, str], folder: Path) -> None:
    """Test Spearman of both, for each seed."""
    settings = load_config(CONFIG, overrides)
    rows = _rows(settings, ("train", "test"))
    found: dict[str, list[float]] = {"jaxtune": [], "sentence-transformers": []}
    for seed in range(arguments.seeds):
        own = load_config(CONFIG, overrides | {"seed": str(seed)})
        done = jt.train(own, folder / f"run{seed}", report=Report(quiet=True))
        found["jaxtune"].append(done["scores"]["test"]["spearman"])
        print(f"jaxtune, seed {seed}: {found['jaxtune'][-1]:.4f}", flush=True)
        if arguments.peer:
            job = _job(settings, overrides, rows, folder) | {"options": _options(settings, seed)}
            peer = Peer(arguments.peer, "sentence_worker.py", job, folder)
            peer.ask("train 0")
            found["sentence-transformers"].append(peer.ask("eval 0")["spearman"])
            peer.close()
            print(f"sentence-transformers: {found['sentence-transformers'][-1]:.4f}", flush=True)
    for name, values in found.items():
        if values:
            spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
            print(f"{name}: test Spearman {np.mean(values):.4f}, sd {spread:.4f}")


def speed(arguments: argparse.Namespace, overrides: dict[str, str], folder: Path) -> None:
    """Texts a second of both, in turn."""
    if arguments.squad is not None:
        file = _squad_pairs(arguments.squad, folder)
        overrides |= {"data.path": str(file), "data.text_columns": "question,context"}
        overrides |= {"data.column_names": "", "loss.name": "ranking", "data.max_length": "256"}
        overrides |= {"data.label_column": "label"}  # which no row has: pairs have no score
    settings = load_config(CONFIG, overrides)
    job = _job(settings, overrides, _rows(settings, ("train", "validation")), folder)
    jobs = {
        "jaxtune": (sys.executable, "jaxtune_worker.py"),
        "sentence-transformers": (arguments.peer, "sentence_worker.py"),
    }
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    peers = {name: Peer(python, worker, job, folder) for name, (python, worker) in jobs.items()}
    for peer in peers.values():
        peer.ask(f"train {TURN}")  # what is compiled or allocated once
    for _ in range(arguments.turns):
        for name, peer in peers.items():
            done = peer.ask(f"train {TURN}")
            rates[name].append(done["examples"] / done["seconds"])
            print(f"{name}: {rates[name][-1]:.1f} texts/s, {_padding(done):.0%} padding")
    for peer in peers.values():
        peer.close()
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
    for name, value in medians.items():
        print(f"{name}: median {value:.1f} texts/s")
    print(f"ratio {np.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


def memory(arguments: argparse.Namespace, overrides: dict[str, str], folder: Path) -> None:
    """Bytes that a step needs beside its arguments, as it was compiled."""
    del folder, arguments
    found = []
    for size, parts in ((64, 1), (1024, 16)):
        chosen = {"train.batch_size": str(size), "train.num_microbatches": str(parts)}
        chosen |= {"data.layout": "padded", "data.max_length": "64", "train.num_epochs": "1"}
        run = prepare(load_config(CONFIG, overrides | chosen), Report(quiet=True))
        stage = stages.begin(run, 0, run.params)
        index, epoch = next(run.data.stream.indices())
        batch = run.data.stream.collate(index, epoch)
        found.append(
            stage.step.program(stage.state, stage.frozen, batch)
            .memory_analysis()
            .temp_size_in_bytes
        )
        shape = " x ".join(map(str, batch["input_ids"].shape))
        print(f"{size} pairs in {parts} parts, {shape} tokens: {found[-1] / 2**20:.1f} MiB")
    print(f"ratio {found[1] / found[0]:.3f}")


class Peer:
    """A worker in a process of its own."""

    def __init__(self, python: str, worker: str, job: dict[str, Any], folder: Path) -> None:
        """Waits until it is ready."""
        file = folder / f"{worker}.json"
        file.write_text(json.dumps(job))
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
        command = [python, str(PEERS / worker), str(file)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
        self._read()

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to a command."""
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended with {self._process.wait()}")
        return json.loads(line)


def _job(
    settings: Any, overrides: dict[str, str], rows: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """As `peers.protocol.Job`."""
    file, train = folder / "rows.json", settings.train
    file.write_text(json.dumps(rows), encoding="utf-8")
    return {
        **{"mode": "train", "rows": str(file), "model": settings.model.path},
        **{"from_scratch": False, "dtype": "float32", "strategy": "full", "num_layers": 0},
        **{"batch_size": train.batch_size, "eval_batch_size": train.eval_batch_size},
        "learning_rate": settings.optimizer.learning_rate,
        "max_length": settings.data.tokens.max_length,
        **{"device": "cpu", "restarts": False, "options": _options(settings, 0)},
        **{"config": CONFIG, "overrides": overrides},
    }


def _options(settings: Any, seed: int) -> dict[str, str]:
    return {
        "loss": settings.loss.groups.name,
        "epochs": str(settings.train.num_epochs),
        "warmup": str(settings.optimizer.warmup_fraction),
        "seed": str(seed),
    }


def _rows(settings: Any, splits: tuple[str, str]) -> dict[str, Any]:
    """The rows that a run trains on and is scored on, as `train` and `eval`."""
    found = read_data(settings.data, group_tables.GROUPS).splits
    parts = [found.get(split, found["validation"]) for split in splits]
    scores = [[None] * len(p.inputs) if p.labels is None else p.labels.tolist() for p in parts]
    made = [
        [[*texts, value] for texts, value in zip(part.inputs, own, strict=True)]
        for part, own in zip(parts, scores, strict=True)
    ]
    return {"train": made[0], "eval": made[1]}


def _squad_pairs(source: Path, folder: Path) -> Path:
    """Questions with their contexts, of SQuAD's JSON."""
    pairs = {
        question["question"]: paragraph["context"]
        for article in json.loads(source.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
        if question["question"].strip()
    }
    file = folder / "pairs.jsonl"
    rows = ({"question": q, "context": c} for q, c in pairs.items())
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _padding(done: dict[str, Any]) -> float:
    return 1 - done["tokens"] / done["computed_tokens"]


if __name__ == "__main__":
    main()
