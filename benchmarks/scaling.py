"""Checks the scale plan against compiled training steps, and works it out for larger machines.

    python benchmarks/scaling.py --config=configs/agnews.py \
        --config.model.path=MINILM --config.data.path=AG_NEWS --output=scaling.md
    python benchmarks/scaling.py --extrapolate

The first command compiles the training step of each strategy on each mesh and prints, for one
device, what the plan (scale_plan.py) says beside what the compiled program has: bytes of arguments,
of each kind of collective, and of temporaries. Without an accelerator it does so on simulated
devices, in one process for each number of them, and measures no time. On accelerators it takes the
devices that there are, and prints the time of a step beside the least that its messages take.

A collective's bytes are those of what is whole: what an all-gather gives, what a reduce-scatter
takes. Collectives of one device alone do not count. One in the body of a loop counts once, so use
no microbatches. The second command needs no weights and no data.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from scale_extrapolation import CLUSTER, extrapolation
from scale_of_run import leaves_of, planned, work_of
from scale_plan import plan

from jaxtune.analysis.messages import KINDS, collectives
from jaxtune.parallel.sharding import AXES
from jaxtune.run import stages
from jaxtune.run.arguments import parse, run_flags
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run
from jaxtune.run.stages import Stage

STRATEGIES = {
    "full": {"name": "full"},
    "last_layers": {"name": "last_layers", "num_layers": "1"},
    "lora": {"name": "lora"},
    "head": {"name": "head"},
}
OFF = 0.05  # of what is compiled; a row further off than this is marked
WARM, TIMED = 3, 20  # steps
QUIET = Report(Console(quiet=True))


def main() -> None:
    """Compiles what is asked for and prints the table; or the extrapolation."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Overrides such as --config.train.batch_size=32 hold for every row.",
    )
    parser.add_argument("--config", default="configs/agnews.py")
    parser.add_argument("--devices", default="1,2,4,8", help="simulated; ignored on accelerators")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--output", help="the table goes to this file too")
    parser.add_argument("--extrapolate", action="store_true", help="print the plan of larger ones")
    parser.add_argument(
        "--link", type=float, default=CLUSTER.host_link, help="bytes/s each way, for accelerators"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    if arguments.extrapolate:
        show(extrapolation(), arguments.output)
        return
    _, overrides = parse(run_flags(), [f"--config={arguments.config}", "--workdir=unused", *rest])
    names = arguments.strategies.split(",")
    if arguments.child:
        rows = list(measured(arguments.config, overrides, names))
        Path(arguments.child).write_text(json.dumps(rows))
        return
    simulated = jax.default_backend() == "cpu"
    if simulated:
        rows = simulated_rows([int(count) for count in arguments.devices.split(",")])
    else:
        rows = list(measured(arguments.config, overrides, names))
    show(table(rows, None if simulated else arguments.link), arguments.output)


def show(text: str, output: str | None) -> None:
    print(text)
    if output:
        Path(output).write_text(text + "\n")


def simulated_rows(counts: list[int]) -> list[dict[str, Any]]:
    """The rows of each number of devices, from a process of its own, one after the other."""
    rows = []
    for count in counts:
        # The code of the programs never runs, so it need not be good; what they send stays.
        flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
            " --xla_backend_optimization_level=0"
        )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "rows.json")
            command = [sys.executable, __file__, *sys.argv[1:], f"--child={file}"]
            subprocess.run(command, check=True, env=os.environ | {"XLA_FLAGS": flags})
            rows += json.loads(file.read_text())
    return rows


def meshes(count: int) -> list[dict[str, int]]:
    """Sizes of the axes: data, fsdp, data x tensor 2, fsdp x tensor 2."""
    wanted = [(count, 1, 1), (1, count, 1)]
    if count % 2 == 0:
        wanted += [(count // 2, 1, 2), (1, count // 2, 2)]
    return [dict(zip(AXES, sizes, strict=True)) for sizes in dict.fromkeys(wanted)]


def measured(config: str, overrides: dict[str, str], names: list[str]) -> Iterator[dict[str, Any]]:
    """The plan and the compiled step of each mesh of all devices and each strategy."""
    with tempfile.TemporaryDirectory() as tokens:
        for sizes in meshes(jax.device_count()):
            for name in names:
                own = {f"parallel.{axis}": str(size) for axis, size in sizes.items()}
                own |= {f"tuning.{field}": text for field, text in STRATEGIES[name].items()}
                run = prepare(load_config(config, overrides | own), QUIET, Path(tokens))
                yield {
                    "sizes": sizes,
                    "strategy": name,
                    "date": time.strftime("%Y-%m-%d"),
                    "jax": version("jax"),
                    "device": jax.devices()[0].device_kind,
                } | row_of(run, sizes)


def row_of(run: Run, sizes: dict[str, int]) -> dict[str, Any]:
    """What the plan says and what is compiled."""
    stage = stages.begin(run, 0, run.params)
    stream = stage.loader.on_devices()
    _, batch = next(stream)
    stream.close()
    found = plan(leaves_of(run, stage.number), sizes, work_of(run, batch))
    row: dict[str, Any] = {"planned": planned(found)}
    try:
        program = stage.step.program(stage.state, stage.frozen, batch)
    except jax.errors.JaxRuntimeError as error:
        return row | {"error": str(error).splitlines()[0]}
    memory = program.memory_analysis()
    sent = collectives(program.as_text())
    row["compiled"] = {
        "arguments": None if memory is None else memory.argument_size_in_bytes,
        "temporaries": None if memory is None else memory.temp_size_in_bytes,
        "wire": sum(one.wire_bytes for one in sent),
        **{kind: sum(one.num_bytes for one in sent if one.kind == kind) for kind in KINDS},
    }
    if jax.default_backend() != "cpu":
        row["seconds"] = seconds(program, stage, batch)
    return row


def seconds(program: Any, stage: Stage, batch: Any) -> float:
    """The median time of a step."""
    state, times = stage.state, []
    for _ in range(WARM + TIMED):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program(state, stage.frozen, batch))
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM:])


def table(rows: list[dict[str, Any]], link: float | None) -> str:
    """Markdown; with measured times where there is a link."""
    columns = ["arguments", "all-reduce", "all-gather", "reduce-scatter", "other"]
    head = ["devices", "mesh", "strategy", *columns, "on the wire", "temporaries, estimated", ""]
    if link:
        head += ["ms a step", "least ms of its messages"]
    about = f"jax {rows[0]['jax']}, {rows[0]['device']}, {rows[0]['date']}"
    lines = [f"{about}. In MB: plan / compiled (ratio).", ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        sizes = row["sizes"]
        mesh = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1)
        cells = [str(math.prod(sizes.values())), mesh or "-", row["strategy"]]
        if "error" in row:
            cells += [f"does not compile: {row['error'][:90]}", *[""] * (len(head) - 4)]
        else:
            ours, theirs = with_others(row["planned"]), with_others(row["compiled"])
            cells += [pair(ours[name], theirs[name]) for name in columns]
            cells += [pair(ours["wire"], theirs["wire"])]
            cells += [pair(ours["temporaries"], theirs["temporaries"])]
            cells += [marks(ours, theirs, [*columns, "wire"])]
            if link:
                least = 1e3 * theirs["wire"] / link
                cells += [f"{1e3 * row['seconds']:.2f}", f"{least:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_others(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"other": values["all-to-all"] + values["collective-permute"]}


def pair(ours: float, theirs: float | None) -> str:
    """Planned and compiled MB, and their ratio."""
    if theirs is None:
        return f"{ours / 1e6:.3f} / unknown"
    if not ours and not theirs:
        return "0"
    if ours == theirs:
        return f"{ours / 1e6:.3f}, exact"
    ratio = f"{ours / theirs:.3f}" if theirs else "-"
    return f"{ours / 1e6:.3f} / {theirs / 1e6:.3f} ({ratio})"


def marks(ours: dict[str, Any], theirs: dict[str, Any], names: list[str]) -> str:
    """Names what is off."""
    off = [
        name
        for name in names
        if theirs[name] is not None and abs(ours[name] - theirs[name]) > OFF * theirs[name]
    ]
    return f"OFF: {', '.join(off)}" if off else ""


if __name__ == "__main__":
    main()
