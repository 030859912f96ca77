"""Few labelled texts a class: jaxtune's few_shot, full and head, and SetFit on torch.

    python benchmarks/fewshot.py --model=MINILM --data=AG_NEWS --peer=PYTHON [--shots 8 16 64]

Draws of so many rows of each class from AG_NEWS/train.csv, by the seeds 0, 1, and so on; test
accuracy on 1,000 rows of test.csv. All see the same rows, one process after the other, in turn draw
by draw. Four further rows are jaxtune's validation, by which nothing is chosen: each run is
evaluated once, at its end. PYTHON is that of an environment with setfit, which learns from the
first of the shots alone; without it, jaxtune is measured by itself.

`seconds` are those of training, from the model's files to a trained model, compiling included;
`process` those since the process was begun; `cpu` those of its threads together.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PEERS = Path(__file__).parent / "peers"
TEST = 1000
SHARED: dict[str, Any] = {"train.batch_size": 16, "train.trackers": (), "data.max_length": 256}
FIELDS: dict[str, dict[str, Any]] = {
    "few_shot": {
        **{"task": "few_shot", "train.num_epochs": 1, "train.batch_size": 4},
        **{"optimizer.learning_rate": 2e-5, "optimizer.weight_decay": 0.0},
    },
    "head": {"tuning.name": "head", "optimizer.learning_rate": 5e-3, "train.num_steps": 200},
    "full": {"optimizer.learning_rate": 5e-5, "train.num_steps": 60},
}
"""By the name of a run of jaxtune; the first is configs/fewshot.py."""


def main() -> None:
    """Measures each draw and prints the means."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", default="")
    parser.add_argument("--shots", type=int, nargs="+", default=[8])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--runs", nargs="+", default=[*FIELDS], choices=[*FIELDS])
    arguments = parser.parse_args()
    train, test = (_read(arguments.data / f"{split}.csv") for split in ("train", "test"))
    held = [test[i] for i in np.random.default_rng(0).permutation(len(test))[:TEST]]
    for shots in arguments.shots:
        names = [*arguments.runs]
        if arguments.peer and shots == arguments.shots[0]:
            names.append("setfit")
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for seed in range(arguments.draws):
            rows = _draw(train, shots, seed) | {"test": held}
            for name in names:
                found[name].append(_measure(name, arguments, rows, seed))
                told = ", ".join(f"{key} {value:.3f}" for key, value in found[name][-1].items())
                print(f"{shots} a class, draw {seed}, {name}: {told}", flush=True)
        for name, values in found.items():
            print(_line(shots, name, values), flush=True)


def _read(file: Path) -> list[tuple[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return [(row["text"], row["label"]) for row in csv.DictReader(stream)]


def _draw(rows: list[tuple[str, str]], shots: int, seed: int) -> dict[str, Any]:
    """So many rows of each class, and one more of each for validation."""
    order = np.random.default_rng(seed).permutation(len(rows))
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    for name in sorted({label for _, label in rows}):
        own = [rows[i] for i in order if rows[i][1] == name]
        parts["train"] += own[:shots]
        parts["validation"] += own[shots : shots + 1]
    return parts


def _measure(
    name: str, arguments: argparse.Namespace, rows: dict[str, Any], seed: int
) -> dict[str, float]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file, job = Path(folder) / "rows.json", Path(folder) / "job.json"
        file.write_text(json.dumps(rows), encoding="utf-8")
        fields = SHARED | FIELDS.get(name, {})
        steps = fields.get("train.num_steps")
        fields |= {} if steps is None else {"train.eval_every_steps": steps}
        job.write_text(
            json.dumps(
                {"rows": str(file), "model": arguments.model, "seed": seed, "fields": fields}
                | {"folder": f"{folder}/run", "started": time.time()}
            )
        )
        is_peer = name == "setfit"
        python = arguments.peer if is_peer else sys.executable
        worker = PEERS / ("setfit_worker.py" if is_peer else "fewshot_worker.py")
        done = subprocess.run(
            [python, str(worker), str(job)], capture_output=True, text=True, env={**os.environ}
        )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def _line(shots: int, name: str, values: list[dict[str, float]]) -> str:
    parts = []
    for key in ("accuracy", "seconds", "process", "cpu"):
        own = np.array([value[key] for value in values])
        error = own.std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else float("nan")
        digits = 4 if key == "accuracy" else 1
        parts.append(f"{key} {own.mean():.{digits}f} (standard error {error:.{digits}f})")
    return f"{shots} a class, {name}: {', '.join(parts)}"


if __name__ == "__main__":
    main()
