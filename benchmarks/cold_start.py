"""Seconds from the command to the first table of a run, of one source tree or of two in turn.

    python benchmarks/cold_start.py . --config=configs/quickstart.py
    python benchmarks/cold_start.py ../before . --repeats=7
    python benchmarks/cold_start.py ../before . --until="step 1/" --config.train.eval_every_steps=1

Each start is a process of its own, ended at the table's first line, or at the first one that begins
with `--until`: as above, when the first step is taken and evaluated. Programs, tokens and bytecode
are kept in folders of this script's own; the first start of each tree fills them and is not
counted. Beside the seconds on the clock stand those of the processor, which other programs disturb
less.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_DROPPED = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
"""What would keep a start from using what the start before it has left."""


def main(argv: list[str]) -> None:
    """Starts the trees in turn and prints the median of each."""
    arguments = _parse(argv)
    trees = [tree.resolve() for tree in arguments.trees]
    seconds = {tree: [] for tree in trees}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(arguments.repeats + 1):
            for number, tree in enumerate(trees):
                folder = Path(scratch) / str(number)
                more = [f"--workdir={folder / f'run{repeat}'}", *arguments.more]
                found = time_start(tree, arguments.config, folder, arguments.until, more)
                if repeat:
                    seconds[tree].append(found)
                print(f"{repeat or 'warm-up'}: {tree}: {found[0]:.2f} s, CPU {found[1]:.2f} s")
    clocks, cpus = (
        [statistics.median(s[i] for s in seconds[tree]) for tree in trees] for i in (0, 1)
    )
    for tree, clock, cpu in zip(trees, clocks, cpus, strict=True):
        ratios = f"{clock / clocks[0]:.2f}, CPU {cpu / cpus[0]:.2f}"
        print(f"median: {tree}: {clock:.2f} s, CPU {cpu:.2f} s; of the first tree's: {ratios}")


def time_start(
    tree: Path, config: str, caches: Path, until: str, more: list[str]
) -> tuple[float, float]:
    """Seconds to a line: on the clock, and of the processor (user and system).

    Args:
      tree: a folder that holds `jaxtune/`.
      config: as the command takes it; a path is taken from the tree.
      caches: a folder for programs, tokens and workdirs.
      until: how the line begins.
      more: other arguments of the command.
    """
    environment = {k: v for k, v in os.environ.items() if k not in _DROPPED}
    environment |= {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(caches)}
    environment |= {"PYTHONPYCACHEPREFIX": str(caches / "bytecode")}  # no tree is written to
    command = [sys.executable, "-m", "jaxtune.main", f"--config={config}"]
    command += more
    before, start = _cpu_of_children(), time.perf_counter()
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            if not any(line.strip().startswith(until) for line in process.stdout):
                raise SystemExit(f"{' '.join(command)}: ended without a line {until!r}")
            clock = time.perf_counter() - start
        finally:
            process.kill()
    return clock, _cpu_of_children() - before


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("trees", nargs="+", type=Path, help="folders that hold jaxtune/")
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--until", default="jaxtune", help="how the line begins that ends a start")
    parser.add_argument("--repeats", type=int, default=5, help="counted starts of each")
    arguments, arguments.more = parser.parse_known_args(argv)
    return arguments


if __name__ == "__main__":
    main(sys.argv[1:])
