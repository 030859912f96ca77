"""A run as a tracker sees it: python service_worker.py NAME WORKDIR; prints what was written.

One that goes on, from step 4, is told of the rest.
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from jaxtune.run.services import make_trackers

CONFIG = {"seed": 3, "tuning": {"name": "lora", "rank": 8}}
ROWS = [
    (2, {"epoch": 0.5, "train/loss": 0.75, "train/tokens_per_second": None}),
    (4, {"validation/loss": 0.625, "validation/accuracy": 0.5}),
    (6, {"epoch": 1.5, "train/loss": 0.375}),
    (6, {"end/best_step": 4, "end/test/accuracy": 0.25}),
]


def tell(name: str, workdir: Path, rows: list, step: int) -> None:
    said: list[str] = []
    (tracker,) = make_trackers((name,), workdir, said.append)
    tracker.start(CONFIG, step)
    for at, scores in rows:
        tracker.log(at, scores)
    tracker.finish()
    assert not any("failed" in line for line in said), said


def wandb_records(data: bytes) -> Iterator[bytes]:
    """Of a .wandb file: blocks of 32 KiB of parts, as LevelDB's log has them, after 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no room for a part's head
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_wandb(workdir: Path) -> dict:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict = {"ids": set(), "config": {}, "scores": [], "ends": {}}
    for file in sorted(workdir.glob("wandb/offline-run-*/run-*.wandb")):
        for data in wandb_records(file.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("run"):
                found["ids"].add(record.run.run_id)
                update = record.run.config.update
                found["config"] |= {item.key: json.loads(item.value_json) for item in update}
            row = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            if row:
                step = int(row.pop("_step", record.history.step.num))
                own = {k: json.loads(v) for k, v in row.items() if not k.startswith("_")}
                found["scores"].append([step, own])
            for item in record.summary.update:
                if (item.key or item.nested_key[0]).startswith("end/"):
                    found["ends"][item.key or item.nested_key[0]] = json.loads(item.value_json)
    return found | {"ids": sorted(found["ids"])}


def read_mlflow(workdir: Path) -> dict:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workdir.resolve() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("jaxtune")
    (run,) = client.search_runs([experiment.experiment_id])
    scores: dict = {}
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            scores.setdefault(metric.step, {})[name] = metric.value
    ends = {k: v for row in scores.values() for k, v in row.items() if k.startswith("end/")}
    return {
        "ids": [run.info.run_id],
        "config": run.data.params,
        "scores": sorted(scores.items()),
        "ends": ends,
        "status": run.info.status,
    }


def read_trackio(workdir: Path) -> dict:
    from trackio.sqlite_storage import SQLiteStorage

    runs = SQLiteStorage.get_runs("jaxtune")
    logs = SQLiteStorage.get_logs("jaxtune", runs[0])
    scores = [
        [row.pop("step"), {k: v for k, v in row.items() if "/" in k or k == "epoch"}]
        for row in logs
    ]
    ends = {k: v for _, row in scores for k, v in row.items() if k.startswith("end/")}
    config = SQLiteStorage.get_run_config("jaxtune", runs[0])
    return {"ids": runs, "config": config, "scores": scores, "ends": ends}


if __name__ == "__main__":
    name, workdir = sys.argv[1], Path(sys.argv[2])
    tell(name, workdir, ROWS[:2], 0)
    tell(name, workdir, ROWS[2:], 4)
    print(json.dumps(globals()[f"read_{name}"](workdir)))
