"""The most memory that a whole run holds, beside the build before and transformers' Trainer.

    pip install torch==2.13.0 transformers==5.24.0 accelerate  # in a Python of its own
    python benchmarks/growth_memory.py --trainer=TORCH/bin/python --before=../before
    python benchmarks/growth_memory.py --size=mini --devices=1,8

The run is a full fine-tuning of a BERT of random weights, in batches of 4 x 32 tokens, or as many
examples as there are devices, with an evaluation and a checkpoint every two steps, the best
reloaded at the end and the model written. The Trainer has the same model, rows, evaluations, saves
and reload. The peak is of the resident memory of a process and all that it starts, looked at a
hundred times a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIZES = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "mini": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
}
TOKENS, STEPS, EVERY = 32, 8, 2
PEER = Path(__file__).absolute().parent / "peers" / "trainer_memory.py"


class Found(NamedTuple):
    """Of one run: the peak in bytes, and what was resident as each line was printed."""

    peak: int
    seconds: float
    lines: list[tuple[int, str]]


def main(argv: list[str]) -> None:
    """Runs each build and the Trainer, one after the other, and prints a line for each."""
    arguments = _parse(argv)
    trees = {"jaxtune": Path(__file__).absolute().parents[1]}
    if arguments.before:
        trees = {"before": arguments.before.resolve()} | trees
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        count = write_model(Path(scratch) / "model", SIZES[arguments.size])
        write_rows(Path(scratch) / "data", 64)
        print(f"{count:,} parameters")
        for repeat in range(arguments.repeats):
            for name, tree in trees.items():
                for devices in map(int, arguments.devices.split(",")):
                    workdir = Path(scratch) / f"{name}{repeat}{devices}"
                    command = own_command(tree, workdir, devices, arguments.more)
                    found = measure(*command, tree)
                    tell(f"{name}, {devices} devices", found, count, arguments.trace)
            if arguments.trainer:
                job = {"folder": scratch, "tokens": TOKENS, "steps": STEPS, "every": EVERY}
                command = [arguments.trainer, str(PEER), json.dumps(job)]
                tell("trainer", measure(command, dict(os.environ)), count, arguments.trace)


def tell(name: str, found: Found, count: int, trace: bool) -> None:
    """Prints what was found of one run."""
    if trace:
        for size, line in found.lines:
            print(f"    {size / 1e6:8,.0f} MB  {line}")
    each = found.peak / count
    print(
        f"{name}: {found.peak / 1e6:,.0f} MB at the peak, {each:.1f} bytes a parameter,"
        f" {found.seconds:.0f} s",
        flush=True,
    )


def own_command(
    tree: Path, workdir: Path, devices: int, more: list[str]
) -> tuple[list[str], dict[str, str]]:
    """The command of a run of jaxtune, and its environment."""
    folder = workdir.parent
    fields = {
        "model.path": folder / "model",
        "data.path": folder / "data",
        "data.max_length": TOKENS,
        "data.layout": "padded",
        "train.batch_size": max(4, devices),
        "train.eval_batch_size": max(4, devices),
        "train.num_steps": STEPS,
        "train.eval_every_steps": EVERY,
        "optimizer.learning_rate": 1e-12,  # the first evaluation stays the best
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    config = f"--config={tree / 'configs' / 'agnews.py'}"
    command = [sys.executable, "-m", "jaxtune.main", config, f"--workdir={workdir}", *flags, *more]
    environment = dict(os.environ) | {"PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache")}
    if devices > 1:
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return command, environment


def measure(command: list[str], environment: dict[str, str], folder: Path | None = None) -> Found:
    """The peak of a command's resident memory, with all processes that it starts.

    Args:
      command: with its arguments.
      environment: all of it.
      folder: that it is started in, whose modules are found first.
    """
    peak, lines, start = [0], [], time.perf_counter()
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                peak[0] = max(peak[0], resident(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((resident(process.pid), line.rstrip()))
        process.wait()
        ended.set()
        watcher.join()
    if process.returncode:
        raise SystemExit("\n".join(line for _, line in lines[-30:]))
    return Found(peak[0], time.perf_counter() - start, lines)


def resident(pid: int) -> int:
    """Bytes of a process and its children, and theirs; 0 where it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        children = [
            int(child)
            for task in (folder / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident, children))


def write_model(folder: Path, size: dict[str, int]) -> int:
    """A BERT of random weights with a head of two classes; gives the number of parameters."""
    from safetensors.numpy import save_file

    from jaxtune.core import paths
    from jaxtune.models import convert
    from jaxtune.models.design import choose_outputs, make_design
    from jaxtune.models.source import read_source

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(30_517))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    config |= {"vocab_size": len(words), "intermediate_size": 4 * size["hidden_size"], **size}
    config |= {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    source, rng, tensors = read_source(folder), np.random.default_rng(0), {}
    design = make_design(source, "sequence", choose_outputs("sequence", source.hf_config))
    for leaf, shape in paths.flatten(design.shapes).items():
        value = np.ones(shape.shape, np.float32)
        if not leaf.endswith("/scale"):
            value = 0.02 * rng.standard_normal(shape.shape, np.float32)
        tensors[convert.torch_name(leaf)] = convert.to_file(leaf, value)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return sum(value.size for value in tensors.values())


def write_rows(folder: Path, count: int) -> None:
    """Texts of more words than a batch has tokens, in two splits."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, rows in (("train", count), ("validation", count // 4)):
        lines = ["text,label"]
        for i in range(rows):
            words = " ".join(f"w{j}" for j in rng.integers(30_000, size=TOKENS + 8))
            lines.append(f"{words},{('no', 'yes')[i % 2]}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", type=Path, help="a folder that holds another build's jaxtune/")
    parser.add_argument("--trainer", help="a Python that has torch and transformers")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--devices", default="1", help="simulated devices, such as 1,8")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--scratch", help="a folder for models and checkpoints")
    parser.add_argument("--trace", action="store_true", help="what is resident at each line")
    arguments, arguments.more = parser.parse_known_args(argv)
    return arguments


if __name__ == "__main__":
    main(sys.argv[1:])
