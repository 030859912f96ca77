"""How time and memory grow with what a run is given: one table, with the build before and peers.

    pip install torch==2.13.0 transformers==5.24.0 accelerate datasets  # in a Python of its own
    python benchmarks/growth.py --before=OTHER/CHECKOUT --torch=TORCH/bin/python
    python benchmarks/growth.py --only=attention --quick

Every value is of a process of its own, the builds and the peer by turns. The parts are modules
beside this one, which say what they measure:

    attention  a step as rows grow; beside scaled dot-product attention on torch
    layouts    an epoch of few long and many short texts
    memory     the peak of a whole run, on one device and on eight; beside the Trainer
    start      a short job, whole; beside the Trainer
    data       rows, questions, classes and images before the first step; beside `datasets.map`

The law is the exponent that fits the values of this build over the sizes of a row: 1 is linear,
2 is quadratic. Without `--before` or `--torch` these columns stay empty.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import growth_attention
import growth_data
import growth_layouts
import growth_memory
import growth_start
from growth_table import HEAD, OWN, Options, Row

PARTS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "attention": growth_attention.rows,
    "layouts": growth_layouts.rows,
    "memory": growth_memory.rows,
    "start": growth_start.rows,
    "data": growth_data.rows,
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="a checkout of the build to compare with")
    parser.add_argument("--torch", help="a Python that has torch and transformers")
    parser.add_argument("--data", type=Path, default=OWN.parent / "shared" / "data")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--quick", action="store_true", help="without the large sizes")
    parser.add_argument("--scratch", help="a folder on a disk with 20 GB of room")
    chosen = parser.parse_args()
    print(HEAD)
    for name, part in PARTS.items():
        if chosen.only and name not in chosen.only:
            continue
        before = chosen.before and chosen.before.resolve()
        with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
            for row in part(
                Options(before, chosen.torch, chosen.data.resolve(), chosen.quick, Path(scratch))
            ):
                row.print()


if __name__ == "__main__":
    main()
