"""Requests a second of `jaxtune serve`, beside transformers' pipeline behind the same server.

    python benchmarks/serving.py --model=runs/agnews/model --data=AG_NEWS/test.csv \
        --torch=TORCH/bin/python

`--model` is a folder that jaxtune has written, which transformers loads too. Each of `--clients`
has a connection, sends one text, waits for the answer and sends the next, until `--requests` texts
have been answered. All servers run in turn, `--rounds` times; one idles while another is asked.
Without `--torch`, a Python with what peers/pipeline_server.py names, jaxtune runs alone.

Columns: requests/s, and milliseconds of the median and the 99th percentile over all requests, as
medians over rounds; milliseconds of all cores that the server takes for a request, which another
program's load changes less; how many requests had another answer than 200, or none; and how many
classes are not those of the first server.
"""

import argparse
import asyncio
import csv
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PEER = Path(__file__).absolute().parent / "peers" / "pipeline_server.py"
# Without huge pages a fifth of a step may go to page faults, on JAX and torch alike.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "TOKENIZERS_PARALLELISM": "true"}


class Round(NamedTuple):
    """What a server has done with all texts.

    Attributes:
      seconds: of each request that was answered.
      lost: requests without a good answer.
      labels: of each text; empty where there is none.
      wall: seconds for all.
      cpu: seconds of all cores that the server has taken; NaN where the system does not tell.
    """

    seconds: list[float]
    lost: int
    labels: list[str]
    wall: float
    cpu: float = math.nan


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What a process has taken of all cores so far."""
    file = Path(f"/proc/{process.pid}/stat")
    if not file.exists():
        return math.nan
    fields = file.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def commands(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each server, without its port."""
    own = [sys.executable, "-m", "jaxtune", "serve", f"--max_queue={2 * arguments.clients + 256}"]
    for dtype in arguments.dtypes.split(","):
        yield f"jaxtune {dtype}", [*own, f"--compute_dtype={dtype}"]
    for mode in ("calls", "batches") if arguments.torch else ():
        yield f"pipeline, {mode}", [arguments.torch, str(PEER), f"--mode={mode}"]


def start(command: list[str], model: str) -> tuple[subprocess.Popen[bytes], int]:
    """A server that is ready, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, f"--model={model}", f"--port={port}"], env=os.environ | ENVIRONMENT
    )
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                return process, port
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{command[0]} has ended with {process.returncode}")


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
) -> dict[str, Any] | None:
    """The answer on an open connection; None where it is no good one."""
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    sizes = [line.partition(":")[2] for line in fields if line.startswith("content-length:")]
    answer = await reader.readexactly(int(sizes[0]))
    return json.loads(answer) if status.split()[1] == "200" else None


def label_of(answer: dict[str, Any]) -> str:
    """The class, of jaxtune's answer or the pipeline's."""
    (one,) = answer["predictions"]
    if isinstance(one, dict):
        return one["label"]
    classes = one[0] if isinstance(one[0], list) else one
    return max(classes, key=lambda c: c["score"])["label"]


async def drive(port: int, texts: list[str], clients: int) -> Round:
    """Sends all texts."""
    numbers = iter(range(len(texts)))
    seconds: list[float] = []
    labels = [""] * len(texts)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in numbers:
            begin = time.perf_counter()
            try:
                found = await ask(reader, writer, json.dumps({"inputs": [texts[i]]}).encode())
            except (OSError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            if found is not None:
                seconds.append(time.perf_counter() - begin)
                labels[i] = label_of(found)
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - begin
    return Round(seconds, len(texts) - len(seconds), labels, wall)


def read_texts(file: str, count: int) -> list[str]:
    """The texts of a csv, over and over."""
    with open(file, encoding="utf-8", newline="") as stream:
        rows = [row["text"] for row in csv.DictReader(stream)]
    return [rows[i % len(rows)] for i in range(count)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--torch")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = read_texts(arguments.data, arguments.requests)
    servers = {name: start(command, arguments.model) for name, command in commands(arguments)}
    found: dict[str, list[Round]] = {name: [] for name in servers}
    try:
        for _ in range(arguments.rounds):
            for name, (process, port) in servers.items():
                before = cpu_seconds(process)
                one = asyncio.run(drive(port, texts, arguments.clients))
                found[name].append(one._replace(cpu=cpu_seconds(process) - before))
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    reference = next(iter(found.values()))[0].labels
    print("| Server | requests/s | p50, ms | p99, ms | CPU, ms | lost | other classes |")
    print("|---|---|---|---|---|---|---|")
    for name, rounds in found.items():
        rates = [len(one.seconds) / one.wall for one in rounds]
        cuts = [statistics.quantiles(one.seconds, n=100) for one in rounds]
        half, last = (1e3 * statistics.median(cut[i] for cut in cuts) for i in (49, 98))
        others = sum(a != b for a, b in zip(reference, rounds[0].labels, strict=True))
        cpu = 1e3 * statistics.median(one.cpu / len(one.labels) for one in rounds)
        lost = sum(one.lost for one in rounds)
        spread = f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"
        print(f"| {name} | {spread} | {half:.0f} | {last:.0f} | {cpu:.1f} | {lost} | {others} |")


if __name__ == "__main__":
    main()
