"""Part of benchmarks/growth.py: the most memory that a whole run holds.

The run is a full fine-tuning of a BERT of random weights, in batches of 4 x 32 tokens, or as many
examples as there are devices, with an evaluation and a checkpoint every two steps, the best
reloaded at the end and the model written. The Trainer has the same model, rows, evaluations, saves
and reload. The peak is of the resident memory of a process and all that it starts, looked at a
hundred times a second.
"""

import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from growth_table import PEERS, Options, Row, own_command

SIZES = {
    "MiniLM's size": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
    "BERT-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "BERT-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
TOKENS, STEPS, EVERY = 32, 8, 2


class Found(NamedTuple):
    """Of one run: the peak in bytes, and seconds on the clock and of the processor."""

    peak: int
    seconds: float
    cpu: float


def rows(options: Options) -> Iterator[Row]:
    """Models on one device, and the smallest on eight simulated ones."""
    sizes = [*SIZES][:1] if options.quick else [*SIZES]
    counts, peaks = [], {key: [] for key in ("before", "peer", "ours")}
    for name in sizes:
        folder = options.scratch / name.replace(" ", "")
        folder.mkdir()
        counts.append(write_model(folder / "model", SIZES[name]))
        write_rows(folder / "data", 64)
        for build in options.builds:
            key = "ours" if build is options.builds[-1] else "before"
            peaks[key].append(_peak(*saving_command(build, folder / key, 1), build))
        if options.torch:
            job = {"folder": str(folder), "tokens": TOKENS, "steps": STEPS, "every": EVERY}
            command = [options.torch, str(PEERS / "trainer_memory.py"), json.dumps(job)]
            peaks["peer"].append(_peak(command, dict(os.environ)))
    title = f"whole run of {', '.join(f'{count / 1e6:.0f}' for count in counts)}M parameters: peak"
    yield Row(title, "MB", peaks["ours"], counts, peaks["before"], peaks["peer"])
    folder, own = options.scratch / sizes[0].replace(" ", ""), {}
    for build in options.builds:
        found = [
            _peak(*saving_command(build, folder / f"{build.name}{n}", n), build) for n in (1, 8)
        ]
        own[build] = [found[1] / found[0]]
    before = own[options.before] if options.before else ()
    title = f"{sizes[0]}, 8 simulated devices: peak, of that of one device"
    yield Row(title, "times", own[options.builds[-1]], before=before)


def _peak(command: list[str], environment: dict[str, str], folder: Path | None = None) -> float:
    return measure(command, environment, folder).peak / 1e6


def saving_command(tree: Path, workdir: Path, devices: int) -> tuple[list[str], dict[str, str]]:
    """The command of a run that saves and evaluates often, and its environment."""
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
    command, environment = own_command(tree, workdir, folder / "cache", fields)
    if devices > 1:
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return command, environment


def measure(command: list[str], environment: dict[str, str], folder: Path | None = None) -> Found:
    """What a command takes, with all processes that it starts.

    Args:
      command: with its arguments.
      environment: all of it.
      folder: that it is started in, whose modules are found first.
    """
    peak, start, before = [0], time.perf_counter(), _cpu_of_children()
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                peak[0] = max(peak[0], resident(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, _ = process.communicate()
        ended.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(said[-3000:])
    return Found(peak[0], time.perf_counter() - start, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
    """A BERT of random weights with a head of two classes; gives the number of parameters.

    The size has fields of its config.
    """
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
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512} | config))
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
