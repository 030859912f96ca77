"""The training step compiled for devices that are not here: kernels, bytes, memory, messages.

    pip install -e ".[cuda12,tpu]"
    python benchmarks/aot.py --target=h100 --model=bert-base --batch=32 --length=128
    python benchmarks/aot.py --target=h100 --model=bert-base --against=f93cc24
    python benchmarks/aot.py --target=v5e:16x16 --mesh=data=32,fsdp=8 --batch=8192 --json

The step is that of a run, of a model by its size whose parameters have shapes and no values, with
all layers in it. Nothing runs, and nothing is tuned by running it, as XLA does on a card: compare
two programs that were compiled alike. `--against` compiles the step of another commit beside it, of
commits from before devices were values (aot_before.py) for one device. With `--json` the last line
is one object. How far the roofline was off where a card could be asked stands in RESULTS.md.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtune.analysis.hlo import parse
from jaxtune.analysis.kernels import launched
from jaxtune.analysis.roofline import by_kind, roofline
from jaxtune.analysis.targets import CHIPS, topology
from jaxtune.core.units import human_bytes, human_flops
from jaxtune.run.forecast import sent_by_kind

HERE = Path(__file__).parent
BERT = {"model_type": "bert"}
MODELS: dict[str, dict[str, Any]] = {
    "bert-base": BERT,
    "bert-large": BERT
    | {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "minilm": BERT | {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "roberta-base": {"model_type": "roberta"},
    "distilbert-base": {"model_type": "distilbert"},
    "modernbert-base": {"model_type": "modernbert"},
    "gpt2": {"model_type": "gpt2"},
    "vit-b16": {"model_type": "vit"},
    "resnet-50": {"model_type": "resnet"},
}
TASKS = {"vit": "image_classification", "resnet": "image_classification"}
DROPOUTS = {  # fields of config.json, by family
    "gpt2": ("attn_pdrop", "embd_pdrop", "resid_pdrop"),
    "distilbert": ("attention_dropout", "dropout", "seq_classif_dropout"),
    "modernbert": ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
    "resnet": (),
}
USUAL_DROPOUTS = ("attention_probs_dropout_prob", "hidden_dropout_prob")


@dataclasses.dataclass(frozen=True)
class Job:
    """A step to compile; `aot_step.py` and `aot_before.py` read it as JSON.

    Attributes:
      target: as `jaxtune.analysis.targets` names it.
      topology: what JAX is asked for it.
      platform: of its devices, as JAX names it.
      fields: of the model's config.json.
      task: as `config.task` spells it.
      settings: `SECTION.FIELD` of a run, and values.
      rows: of a batch.
      length: tokens of a row.
      slots: examples of a packed row; 0 of a batch that is not packed.
      others: lengths that are compiled for too; only the time is told.
      threads: that compile, side by side; of commits from before devices were values one.
      hlo: the file that takes the program's text.
    """

    target: str
    topology: dict[str, str]
    platform: str
    fields: dict[str, Any]
    task: str
    settings: dict[str, Any]
    rows: int
    length: int
    slots: int
    others: tuple[int, ...]
    threads: int
    hlo: str


def main(argv: Sequence[str]) -> None:
    """Compiles, counts and prints."""
    asked = flags().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(asked, str(Path(folder) / "program.txt"))
        found = [("this tree", count(job, build(HERE.parent, job, "aot_step.py")))]
        if asked.against:
            before = checkout(asked.against, folder)
            is_now = (before / "jaxtune" / "core" / "device.py").exists()
            told = build(before, job, "aot_step.py" if is_now else "aot_before.py")
            found.append((asked.against, count(job, told)))
    for line in table(found):
        print(line)
    if asked.json:
        print(json.dumps(found[0][1] | ({"against": found[1][1]} if asked.against else {})))


def flags() -> argparse.ArgumentParser:
    """What may be typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--target", default="h100", help="h100, h100:8, h100:8x8, v5e, v5e:2x2, v5p:2x2x2, ...")
    flag("--model", choices=MODELS, default="bert-base")
    flag("--task", help="as config.task; classification unless the model reads images")
    flag("--batch", type=int, default=32, help="rows, of all devices together")
    flag("--length", type=int, default=128, help="tokens of a row")
    flag("--others", default="", help="other lengths to compile for, for the time alone: 64,96")
    flag("--threads", type=int, default=1, help="programs that are compiled side by side")
    flag("--layout", choices=("bucketed", "packed"), default="bucketed")
    flag("--slots", type=int, default=8, help="examples of a packed row")
    flag("--strategy", default="full", help="as config.tuning.name")
    flag("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    flag("--dropout", type=float, help="everywhere; unless said the family's own")
    flag("--mesh", default="", help="data=4,fsdp=2,tensor=1")
    flag("--set", action="append", default=[], help="SECTION.FIELD=JSON of the settings")
    flag("--against", help="a commit, for one device")
    flag("--json", action="store_true", help="end with one line of JSON")
    return parser


def make_job(asked: argparse.Namespace, hlo: str) -> Job:
    """What was asked, as the processes read it."""
    fields, kind = dict(MODELS[asked.model]), asked.target.partition(":")
    family = fields["model_type"]
    if asked.dropout is not None:
        fields |= dict.fromkeys(DROPOUTS.get(family, USUAL_DROPOUTS), asked.dropout)
    if asked.length > 512 and family in ("bert", "roberta", "distilbert"):
        fields["max_position_embeddings"] = asked.length + 2
    settings = {
        "tuning.name": asked.strategy,
        "precision.compute_dtype": asked.dtype,
        "train.batch_size": asked.batch,
    }
    axes = [part.split("=") for part in asked.mesh.split(",") if part]
    settings |= {f"parallel.{name}": int(size) for name, size in axes}
    settings |= {name: json.loads(value) for name, value in (s.split("=", 1) for s in asked.set)}
    return Job(
        target=asked.target,
        topology=topology(kind[0], kind[2]),
        platform=CHIPS[kind[0]].device.platform,
        fields=fields,
        task=asked.task or TASKS.get(family, "classification"),
        settings=settings,
        rows=asked.batch,
        length=asked.length,
        slots=asked.slots if asked.layout == "packed" else 0,
        others=tuple(int(length) for length in asked.others.split(",") if length),
        threads=asked.threads,
        hlo=hlo,
    )


def checkout(revision: str, folder: str) -> Path:
    """The library of another commit, in a folder."""
    to = Path(folder) / "before"
    to.mkdir()
    packed = subprocess.run(
        ["git", "archive", revision, "jaxtune"], cwd=HERE.parent, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", to], input=packed.stdout, check=True)
    return to


def build(tree: Path, job: Job, script: str) -> dict[str, Any]:
    """Compiles the step of a tree in a process of its own; its last line is JSON."""
    env = os.environ | {
        "PYTHONPATH": str(tree.absolute()),
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, str(HERE / script), json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} of {tree}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def count(job: Job, told: dict[str, Any]) -> dict[str, Any]:
    """What the program of a job launches, beside what its process has told."""
    chip = CHIPS[job.target.partition(":")[0]]
    found = launched(parse(Path(job.hlo).read_text()))
    line = roofline(found, chip)
    kinds = by_kind(found.kernels)
    return told | {
        "kernels": line.kernels,
        "bytes_moved": line.num_bytes,
        "flops": line.flops,
        "roofline_ms": 1e3 * line.seconds,
        "share_of_peak": line.flops / chip.peak["bf16"] / max(line.seconds, 1e-12),
        "collectives": sent_by_kind(found.sent),
        "kinds": {kind: {"count": n, "bytes": size} for kind, (n, size) in kinds.items()},
    }


def table(found: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Markdown, a column for each build."""
    rows: dict[str, list[str]] = {}
    for i, (_, one) in enumerate(found):
        for name, value in cells(one):
            rows.setdefault(name, [""] * len(found))[i] = value
    lines = [f"| | {' | '.join(name for name, _ in found)} |", f"|{'---|' * (len(found) + 1)}"]
    return lines + [f"| {name} | {' | '.join(values)} |" for name, values in rows.items()]


def cells(one: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of one build."""
    moved = human_bytes(one["bytes_moved"])
    found = [
        ("kernels a step", f"{one['kernels']:,}"),
        ("moved by them", moved),
        ("products", human_flops(one["flops"])),
        ("roofline", f"{one['roofline_ms']:.2f} ms"),
        ("of the rate for bfloat16", f"{one['share_of_peak']:.0%}"),
        ("temporaries a device", human_bytes(one["temp_bytes"])),
        ("arguments a device", human_bytes(one["argument_bytes"])),
        ("trace, compile", f"{one['trace_seconds']:.1f} s, {one['compile_seconds']:.1f} s"),
        ("of all lengths", f"{one['all_seconds']:.1f} s"),
    ]
    for kind, x in one["collectives"].items():
        found.append((f"sent: {kind}", f"{x['count']}, {human_bytes(x['wire_bytes'])}"))
    if "planned" in one:
        sent = sum(x["wire_bytes"] for x in one["collectives"].values())
        for name, compiled in (("arguments", one["argument_bytes"]), ("wire", sent)):
            ours = one["planned"][name]
            ratio = f" ({ours / compiled:.3f})" if compiled else ""
            found.append((f"planned: {name}", f"{human_bytes(ours)}{ratio} of what is compiled"))
    for kind, x in one["kinds"].items():
        found.append((f"`{kind}`", f"{x['count']:,}, {human_bytes(x['bytes'])}"))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
