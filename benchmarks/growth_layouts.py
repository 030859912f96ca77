"""Part of benchmarks/growth.py: an epoch of many short texts with a few long ones among them.

Of 1,600 texts one in a hundred has 2,048 tokens, the others 50; batches of 32. A BERT of random
weights, 4 layers of 128 with 4 heads, trained on all of them, packed or bucketed, and bucketed
without the long ones. Seconds are those of training that `results.json` has, without compiling.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from growth_memory import write_model
from growth_table import Options, Row, own_command

_SIZE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
_LONG, _SHORT, _COUNT = 2048, 50, 1600


def rows(options: Options) -> Iterator[Row]:
    """Seconds of an epoch, packed, and bucketed without the long texts."""
    write_model(options.scratch / "model", _SIZE | {"max_position_embeddings": _LONG})
    _write_texts(options.scratch / "mixed", long=True)
    _write_texts(options.scratch / "short", long=False)
    short = _seconds(options.builds[-1], options.scratch, "short", "bucketed")
    for layout in ("packed", "bucketed"):
        found = {
            build: [_seconds(build, options.scratch, "mixed", layout)] for build in options.builds
        }
        before = found[options.before] if options.before else ()
        title = f"1% documents of 2,048 tokens among texts of 50: an epoch {layout}"
        yield Row(title, "s", found[options.builds[-1]], before=before)
    yield Row("the same without the documents, bucketed", "s", [short])


def _seconds(tree: Path, scratch: Path, data: str, layout: str) -> float:
    workdir = scratch / f"{tree.name}-{data}-{layout}"
    flags = {
        "model.path": scratch / "model",
        "data.path": scratch / data,
        "data.max_length": _LONG,
        "data.layout": layout,
        "train.num_epochs": 1,
        "train.batch_size": 32,
    }
    command, environment = own_command(tree, workdir, scratch / "cache", flags)
    subprocess.run(command, env=environment, cwd=tree, check=True, capture_output=True)
    return json.loads((workdir / "results.json").read_text())["train_seconds"]


def _write_texts(folder: Path, long: bool) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", _COUNT), ("validation", 64)):
        lines = ["text,label"]
        for i in range(count):
            size = _LONG if i % 100 == 50 else _SHORT
            if size == _SHORT or long:
                words = " ".join(f"w{j}" for j in rng.integers(30_000, size=size - 2))
                lines.append(f"{words},{('no', 'yes')[i % 2]}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
