"""Reads mutated inputs and counts what comes of it: `python tests/fuzz/run.py --count=10000 csv`.

Each reader of `readers.py` gets `count` inputs, which follow from its name and their number. They
are read in a child process that may take 1 GB more than it does once all is imported, and 2 seconds
of one core for an input. Nothing but success and a `UserError` is right; the exit status is 1 where
something else happened, and what it was is told. The inputs of these are written to `--keep`.
"""

import argparse
import collections
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

RIGHT = ("read", "UserError")
_SILENT = 60  # seconds after which a child that says nothing is stuck outside Python
_SHOWN = 5


def main() -> int:
    """Runs the readers, or is a child that does."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*", help="all where none is named")
    parser.add_argument("--count", type=int, default=300, help="inputs of each reader")
    parser.add_argument("--keep", type=Path, help="a folder for inputs that are not right")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        from child import serve

        serve(arguments.readers, arguments.child, arguments.count, arguments.keep)
        return 0
    if not arguments.readers:
        from readers import READERS

        arguments.readers = [*READERS]
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name, outcomes in fuzz(arguments.readers, arguments.count, arguments.keep).items():
        counts = collections.Counter(outcome for outcome, _ in outcomes)
        print(f"{name:20}", ", ".join(f"{n} {what}" for what, n in counts.most_common()))
        odd = [(i, *found) for i, found in enumerate(outcomes) if found[0] not in RIGHT]
        wrong += len(odd)
        for i, outcome, detail in odd[:_SHOWN]:
            print(f"  input {i}: {outcome}: {detail}")
    return int(wrong > 0)


def fuzz(names: list[str], count: int, keep: Path | None = None) -> dict[str, list[list[str]]]:
    """(outcome, detail) of each input, by reader."""
    found: dict[str, list[list[str]]] = {name: [] for name in names}
    left = [name for name in names if count]
    while left:
        start = len(found[left[0]])
        for name, *outcome in _from_child(left, start, count, keep):
            found[name].append(outcome)
        left = [name for name in left if len(found[name]) < count]
    return found


def _from_child(names: list[str], start: int, count: int, keep: Path | None):
    """What a child says until it ends; where it did so within an input, that is its outcome."""
    options = [f"--child={start}", f"--count={count}", *([f"--keep={keep}"] if keep else [])]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory(prefix="jaxtune-fuzz-") as folder:
        environment |= {"XDG_CACHE_HOME": folder, "TMPDIR": folder}
        child = subprocess.Popen(
            [sys.executable, __file__, *names, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        lines: queue.Queue[str] = queue.Queue()
        said: list[str] = []
        threading.Thread(target=lambda: [*map(lines.put, child.stdout), lines.put("")]).start()
        errors = threading.Thread(target=lambda: said.append(child.stderr.read()))
        errors.start()
        stuck, begun = False, None
        while True:
            try:
                line = lines.get(timeout=_SILENT)
            except queue.Empty:
                stuck = True
                child.kill()
                continue
            if not line:
                break
            name, *outcome = json.loads(line)
            begun = None if outcome else name
            if outcome:
                yield [name, *outcome]
        errors.join()
        if child.wait() == 0:
            return
        if begun is None:
            raise RuntimeError(f"the child ended with {child.returncode}: {said[0][-2000:]}")
        yield [begun, "time" if stuck else "died", f"status {child.returncode} {said[0][-200:]}"]


if __name__ == "__main__":
    sys.exit(main())
