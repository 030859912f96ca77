"""Throughput beside other tools: the same rows, in interleaved repeats, each tool at its best.

    python benchmarks/throughput.py --config=configs/agnews.py --workdir=runs/throughput \
        --config.model.path=MINILM --config.data.path=AG_NEWS \
        --python trainer=TORCH/bin/python --python torch=TORCH/bin/python \
        --python pad512=TORCH/bin/python --python keras=KERAS/bin/python \
        --python flax=FLAX/bin/python

jaxtune runs in the Python of this script, each peer in the one that it is given, without which it
is left out; `peers/` has the workers, and each names what to install. `--rows` chooses rows of
ROWS, `--repeats` their number, `--device=gpu` runs everything on a GPU. `--env NAME=VALUE` sets a
variable for all workers and `--env torch.NAME=VALUE` for one; `--option torch.attention=eager` sets
an option of a worker, which for jaxtune is a field of its config. `--add plain=jaxtune --option
plain.data.layout=padded` adds a peer once more, under a name with options and variables of its own.
`--before=CHECKOUT` adds another build of jaxtune as `before`: its own worker and its own config of
the same name.

Each row of ROWS starts one process for each peer, which idles while another works. `--together`
starts those of all rows at once, which saves time on a machine with cores and memory to spare;
then the times to the first step say nothing. All train on the same rows (or predict them),
tokenized by the same tokenizer; a round is one epoch of each peer in turn, so that what disturbs
the machine hits all. The first epoch warms up and is not timed; jaxtune's time in the compiler is
not counted in any. It is an error if two peers have trained on different numbers of real tokens in
a round, or train different numbers of parameters. Everywhere AdamW, dropout as in the model's
config, the gradient's norm clipped to 1.

Columns, medians over rounds where there are several values:
- examples/s, and tokens/s without padding.
- share of peak: model FLOPs of the real tokens a second, over the rate that the peer's framework
  reaches on products of square matrices in the row's dtype, measured at the start of this run (on a
  known GPU, over the card's dense rate in its data sheet). A layer of width d with inner width f
  has N = 4 d^2 + 2 d f weights in products. With L layers, n examples of t_i tokens, T in all, and
  c classes, a forward pass has F(L) = 2 L N T + 4 L d sum(t_i^2) + 2 (d^2 + d c) n operations.
  Counted are F(L) for evaluation, 3 F(L) for full training, F(L) + 2 F(k) - 6 d^2 T for the last k
  layers (the lowest one's input needs no gradient) and F(L) + 2 d c n for the head: what must be
  computed where nothing is remembered from one epoch to the next. Who remembers may exceed 100%.
- padding: share of the computed tokens that are not real.
- first step: from the start of the process to the end of its first step, with an empty compilation
  cache and with what that left: programs, and jaxtune's tokens. jaxtune reads the rows in it, and
  tokenizes them where it has no cache; the others find both done.
- memory: the largest resident size of the process; on a GPU, the most device memory in use.
- shapes: compiled for the step.
- x trainer: examples/s over the Trainer's within a round, and the range over rounds.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from throughput_report import print_table, rates
from throughput_rows import PEERS, ROWS, Peer, Row, model_flops, write_jobs

PEERS_FOLDER = Path(__file__).absolute().parent / "peers"
# Without huge pages a fifth of a step may go to page faults, on JAX and torch alike.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class WorkerError(Exception):
    """A worker has ended without an answer."""


class Worker:
    """A running worker of a peer."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        """Starts it."""
        self.log, self.start = log, time.perf_counter()
        with open(log, "a", encoding="utf-8") as errors:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            self.process = subprocess.Popen(command, env=env, text=True, **pipes)

    def answer(self) -> dict[str, Any]:
        """Waits for its next line.

        Raises:
          WorkerError: it has ended; the message has the last line that it wrote.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise WorkerError(f"{lines[-1] if lines else 'no message'} (see {self.log})")

    def ask(self, name: str, count: int) -> dict[str, Any]:
        """Sends a command and waits for the answer."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{name} {count}\n")
            self.process.stdin.flush()
        return self.answer()

    def peak_bytes(self) -> int | None:
        """The largest resident size so far; None where the system does not tell."""
        file = Path(f"/proc/{self.process.pid}/status")
        found = re.search(r"VmHWM:\s*(\d+) kB", file.read_text()) if file.exists() else None
        return int(found[1]) * 1024 if found else None

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench(NamedTuple):
    """What holds for all rows.

    Attributes:
      arguments: of the command line.
      config: file of jaxtune.
      overrides: of it, by field.
      workdir: gets jobs, rows, logs and compilation caches.
      pythons: of each peer that takes part.
      peers: by name, those of --add included.
      envs: variables of each peer's worker.
    """

    arguments: argparse.Namespace
    config: str
    overrides: dict[str, str]
    workdir: Path
    pythons: dict[str, str]
    peers: dict[str, Peer]
    envs: dict[str, dict[str, str]]


class OpenRow(NamedTuple):
    """A row whose peers are being started, or ready.

    Attributes:
      name: of ROWS.
      jobs: files by peer.
      lengths: tokens of each row of data.
      results: by peer, of those that failed too.
      workers: by peer, as far as they were started.
    """

    name: str
    jobs: dict[str, Path]
    lengths: np.ndarray
    results: dict[str, dict[str, Any]]
    workers: dict[str, Worker]


def main() -> None:
    """Measures the peaks, then row after row."""
    bench = parse_arguments()
    bench.workdir.mkdir(parents=True, exist_ok=True)
    output = Path(bench.arguments.output or bench.workdir / "results.jsonl")
    peaks = measure_peaks(bench)
    for peak in peaks:
        print(f"{peak['framework']}, {peak['dtype']}, {peak['device']}: {peak['rate'] / 1e9:,.0f}"
              " GFLOP/s in products of square matrices", flush=True)  # fmt: skip
    names = bench.arguments.rows.split(",")
    together = bench.arguments.together
    for group in [names] if together else [[name] for name in names]:
        rows = [open_row(bench, name) for name in group]
        starts = [(row, peer) for row in rows for peer in row.jobs]
        try:
            with ThreadPoolExecutor(len(starts) if together else 1) as pool:
                list(pool.map(lambda start: start_peer(bench, *start), starts))  # raises
            for row in rows:
                report(time_row(bench, row), peaks, output, f"{row.name}: {ROWS[row.name].note}")
        finally:
            for row in rows:
                close(row)


def report(
    results: list[dict[str, Any]], peaks: list[dict[str, Any]], output: Path, title: str
) -> None:
    """Adds rates to the results of a row, writes them and prints their table."""
    for result in results:
        result |= rates(result, peaks)
        result["peaks"] = peaks
    with open(output, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
    print_table(title, results)


def close(opened: OpenRow) -> None:
    """Ends the workers of a row."""
    for worker in opened.workers.values():
        worker.close()


def parse_arguments() -> Bench:
    """Reads the command line; JAX is kept off the GPU in this process."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from jaxtune.run.arguments import parse, run_flags

    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--python", action="append", default=[], help="PEER=PATH, once a peer")
    parser.add_argument("--rows", default=",".join(ROWS), help="names of ROWS, by commas")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of a row")
    parser.add_argument("--examples", type=int, default=1024, help="rows of an epoch")
    parser.add_argument("--output", help="JSON lines; results.jsonl in the workdir by default")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--env", action="append", default=[], help="[PEER.]NAME=VALUE")
    parser.add_argument("--option", action="append", default=[], help="PEER.NAME=VALUE")
    parser.add_argument("--add", action="append", default=[], help="NAME=PEER")
    parser.add_argument("--before", type=Path, help="a checkout of the build to compare with")
    parser.add_argument("--no-warm", action="store_true", help="start with an empty cache alone")
    parser.add_argument("--together", action="store_true", help="start all workers at once")
    arguments, rest = parser.parse_known_args()
    run, overrides = parse(run_flags(), rest)
    unknown = set(arguments.rows.split(",")) - set(ROWS)
    if unknown:
        raise SystemExit(f"--rows: {', '.join(sorted(unknown))}: there are {', '.join(ROWS)}")
    pythons = {"jaxtune": sys.executable} | pairs(arguments.python)
    if set(pythons) - set(PEERS):
        raise SystemExit(f"--python: expected peers among {', '.join(PEERS)}: {pythons}")
    peers = {name: PEERS[name] for name in pythons}
    for name, base in pairs(arguments.add).items():
        peers[name], pythons[name] = peers[base]._replace(base=base), pythons[base]
    if arguments.before:
        tree = arguments.before.absolute()
        worker = str(tree / "benchmarks" / "peers" / "jaxtune_worker.py")
        peers["before"] = peers["jaxtune"]._replace(worker=worker, base="jaxtune", tree=tree)
        pythons["before"] = pythons["jaxtune"]
    options = by_peer(arguments.option, peers)
    for name, peer in peers.items():
        peers[name] = peer._replace(options={**peer.options, **options[name]})
    common, own = worker_environment(arguments.device) | ENVIRONMENT, by_peer(arguments.env, peers)
    envs = {name: common | own[""] | own[name] for name in peers}
    workdir = Path(run.workdir).absolute()
    return Bench(arguments, run.config, overrides, workdir, pythons, peers, envs)


def by_peer(words: list[str], peers: Iterable[str]) -> dict[str, dict[str, str]]:
    """PEER.NAME=VALUE words by peer, and under "" those that name none."""
    found: dict[str, dict[str, str]] = {name: {} for name in ("", *peers)}
    for word, value in pairs(words).items():
        peer, _, name = word.partition(".")
        if peer in peers:
            found[peer][name] = value
        else:
            found[""][word] = value
    return found


def pairs(words: list[str]) -> dict[str, str]:
    """NAME=VALUE words as a dict."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise SystemExit(f"{word!r}: expected NAME=VALUE")
        found[name] = value
    return found


def worker_environment(device: str) -> dict[str, str]:
    """The variables of this process, without its PYTHONPATH, and the device's."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    if device == "cpu":
        return env | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    # The workers of a row share the card, so none may reserve most of it.
    return env | {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def measure_peaks(bench: Bench) -> list[dict[str, Any]]:
    """For each framework and dtype the best that any peer's environment reaches.

    On a CPU, whose rate depends on what else the machine does, they take turns, twice.
    """
    on_cpu = bench.arguments.device == "cpu"
    environments = {
        (peer.framework, bench.pythons[name], tuple(sorted(bench.envs[name].items())))
        for name, peer in bench.peers.items()
    }
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for framework, python, env in sorted(environments) * (2 if on_cpu else 1):
        words = [framework, "float32,bfloat16", "2048" if on_cpu else "8192"]
        command = [python, str(PEERS_FOLDER / "matrix_peak.py"), *words]
        done = subprocess.run(command, env=dict(env), check=True, stdout=subprocess.PIPE)
        for line in done.stdout.splitlines():
            peak = json.loads(line)
            best = found.setdefault((framework, peak["dtype"]), peak)
            best["rate"] = max(best["rate"], peak["rate"])
    return list(found.values())


def open_row(bench: Bench, name: str) -> OpenRow:
    """Writes the jobs; no peer is started yet."""
    row, folder = ROWS[name], bench.workdir / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    taking_part = {
        name: peer for name, peer in bench.peers.items() if (peer.base or name) in row.peers
    }
    count = round(bench.arguments.examples * row.share)
    device = bench.arguments.device
    jobs, lengths, config = write_jobs(
        row, folder, bench.config, bench.overrides, count, device, taking_part
    )
    base = {"row": name, "date": time.strftime("%Y-%m-%d"), "device": device, "dtype": row.dtype}
    base |= {"model_flops": row.epochs * model_flops(row, config, lengths)}
    results = {
        peer: base | {"peer": peer, "framework": bench.peers[peer].framework, "rounds": []}
        for peer in jobs
    }
    return OpenRow(name, jobs, lengths, results, {})


def start_peer(bench: Bench, opened: OpenRow, peer: str) -> None:
    """Starts a peer, and lets it train its first epoch, to which its first step belongs."""
    result = opened.results[peer]
    with failing(result):
        worker = opened.workers[peer] = start_worker(bench, peer, opened.jobs[peer], result)
        warm_up(worker, ROWS[opened.name], len(opened.lengths), result)


def time_row(bench: Bench, opened: OpenRow) -> list[dict[str, Any]]:
    """The results of all peers that take part, those that failed included."""
    name, row, results = opened.name, ROWS[opened.name], opened.results
    expected = row.epochs * int(opened.lengths.sum())
    check_parameters(results)
    for number in range(bench.arguments.repeats):
        for peer, result in results.items():
            if "error" in result:
                continue
            with failing(result):
                answer = one_round(opened.workers[peer], row, len(opened.lengths))
                result["rounds"].append(answer)
                check_tokens(peer, answer, expected)
                print(f"{name}, round {number + 1}, {peer}: {answer['seconds']:.2f} s",
                      file=sys.stderr, flush=True)  # fmt: skip
    for peer, worker in opened.workers.items():
        results[peer]["peak_bytes"] = worker.peak_bytes()
    return list(results.values())


def start_worker(bench: Bench, peer: str, job: Path, result: dict[str, Any]) -> Worker:
    """Starts a worker with an empty cache, and again with what that left; keeps the last one."""
    cache = job.with_suffix(".cache")
    env = bench.envs[peer] | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch"),
    }
    if bench.peers[peer].tree is not None:
        env["PYTHONPATH"] = str(bench.peers[peer].tree)
    command = [bench.pythons[peer], str(PEERS_FOLDER / bench.peers[peer].worker), str(job)]
    worker = ready_worker(command, env, job, result, "cold")
    if bench.arguments.no_warm or bench.arguments.together:
        return worker
    worker.close()
    return ready_worker(command, env, job, result, "warm")


def ready_worker(
    command: list[str], env: dict[str, str], job: Path, result: dict[str, Any], start: str
) -> Worker:
    """A worker that has taken its first step; notes what it says and how long it took."""
    worker = Worker(command, env, job.with_suffix(".log"))
    try:
        result["ready"] = worker.answer()
    except WorkerError:
        worker.close()
        raise
    result[start] = time.perf_counter() - worker.start
    return worker


def warm_up(worker: Worker, row: Row, count: int, result: dict[str, Any]) -> None:
    """What is left of the first epoch, so that rounds begin with an epoch."""
    left = count if row.mode == "eval" else count - result["ready"]["examples"]
    if left:
        result["first"] = worker.ask(row.mode, left)


def one_round(worker: Worker, row: Row, count: int) -> dict[str, Any]:
    """The timed part: one epoch, or several from a new start."""
    if row.epochs > 1:
        worker.ask("begin", 0)
    return worker.ask(row.mode, row.epochs * count)


@contextlib.contextmanager
def failing(result: dict[str, Any]) -> Any:
    """Notes the error of a worker; the others go on."""
    try:
        yield
    except WorkerError as error:
        result["error"] = str(error)
        print(f"{result['row']}, {result['peer']} failed: {error}", file=sys.stderr, flush=True)


def check_parameters(results: dict[str, dict[str, Any]]) -> None:
    """Stops where peers train different parameters, but for those whose model is not the same."""
    counts = {
        peer: result["ready"]["trainable"]
        for peer, result in results.items()
        if "ready" in result and peer not in ("keras", "flax")
    }
    if len(set(counts.values())) > 1:
        raise SystemExit(f"the peers train different numbers of parameters: {counts}")


def check_tokens(peer: str, answer: dict[str, Any], expected: int) -> None:
    """Stops where a peer has not seen the rows that all should see."""
    if answer["tokens"] != expected:
        raise SystemExit(f"{peer} saw {answer['tokens']:,} real tokens in a round: {expected:,}"
                         " are in its rows. The rows or their number differ.")  # fmt: skip


if __name__ == "__main__":
    main()
