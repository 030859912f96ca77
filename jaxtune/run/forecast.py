"""`--mode=plan`: what a run would need of devices that are not here, before anything is rented."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtune.analysis.messages import Collective
from jaxtune.analysis.targets import Target, find_target
from jaxtune.core.errors import UserError
from jaxtune.core.units import human_bytes, human_flops, human_seconds
from jaxtune.io.atomic import write_atomic
from jaxtune.run.console import Report
from jaxtune.run.footprint import (
    SPARE,
    Footprint,
    fits,
    largest_batch,
    measure,
    num_rows,
    widest_stage,
    with_rows,
)
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run
from jaxtune.run.workdir import explain_unwritable
from jaxtune.settings import Settings
from jaxtune.training.compiled import main_shape

_TRIES = 6  # programs that the search for the largest batch compiles
_WIDEST = 1024  # times the rows of the run's own batch, beyond which nothing is tried
_CLOSE = 0.05  # of the rows: where it ends


def forecast(
    settings: Settings,
    target_name: str,
    workdir: Path,
    report: Report,
    token_cache_dir: Path | None = None,
) -> dict[str, Any]:
    """Compiles the step of the largest batch for a target and tells what it needs.

    Data, tokenizer, strategy and shapes of batches are those of the run; of the weights only names
    and shapes are read. Of a strategy in stages it is the stage that trains most.

    Args:
      settings: validated.
      target_name: as of `find_target`.
      workdir: gets `plan.json`, and is not claimed as a run's.
      report: where a person reads along.
      token_cache_dir: a folder that keeps tokens from run to run; None keeps none.

    Returns:
      What `plan.json` holds.

    Raises:
      UserError: bad input, or a target that cannot be compiled for.
    """
    if settings.parallel.mode == "pmap":
        raise UserError("--mode=plan: config.parallel.mode is 'pmap', expected 'jit'.")
    target = find_target(target_name)
    with explain_unwritable(workdir):
        workdir.mkdir(parents=True, exist_ok=True)  # found out before anything is compiled
    run = prepare(settings, report, token_cache_dir, target=target)
    index = widest_stage(run)
    batch = largest_batch(run, index)
    report.line(f"compiling the step of {_shape(batch)} for {target.name}")
    found = measure(run, index, batch, target)
    rows = find_rows(run, index, target, found, report.line)
    results = _results(run, target, batch, found, rows)
    write_atomic(workdir / "plan.json", json.dumps(results, indent=2) + "\n")
    report.table(f"plan for {target.name}", _rows(results, target, workdir))
    return results


def find_rows(
    run: Run, index: int, target: Target, found: Footprint | None, say: Callable[[str], Any]
) -> int:
    """The most rows of a batch that fit, by bisection over compiled programs; 0 where none do.

    Args:
      run: as planned for the target.
      index: of the stage.
      target: that programs are for.
      found: of the largest batch of the run; None where its step cannot be compiled.
      say: takes a line before each program.
    """
    batch, most = largest_batch(run, index), most_rows(run, index)
    unit = run.settings.train.num_microbatches
    unit *= 1 if run.sharding is None else run.sharding.num_shares
    now = num_rows(batch)
    low, high = (now, None) if fits(found, target) else (0, now)
    for _ in range(_TRIES):
        rows = _next(low, high, unit, found, now, target)
        rows = rows if rows is None else min(rows, most // unit * unit)
        if rows is None or rows <= low:
            break
        say(f"compiling with {rows} rows")
        tried = measure(run, index, with_rows(batch, rows), target)
        if fits(tried, target):
            low = rows
        else:
            high = rows
        found, now = (tried, rows) if tried is not None else (found, now)
    return low


def most_rows(run: Run, index: int) -> int:
    """Rows of the largest batch that is tried: all examples, or some times those of the run."""
    examples, batch_size = len(run.data.stream.examples.lengths), run.settings.train.batch_size
    times = min(_WIDEST, max(examples // batch_size, 1))
    return num_rows(largest_batch(run, index)) * times


def _next(
    low: int, high: int | None, unit: int, found: Footprint | None, now: int, target: Target
) -> int | None:
    """The number of rows to try: what memory in proportion gives, inside of what is known."""
    close = max(unit, _CLOSE * low)
    if high is not None and high - low <= close:
        return None
    middle = 2 * low if high is None else (low + high) // 2
    guess = middle
    if found is not None:
        fixed = found.parameter_bytes + found.moment_bytes
        each = max(found.total_bytes - fixed, 1) / now
        guess = int(((1 - SPARE) * target.chip.memory - fixed) / each)
        if guess <= 0 and low == 0:  # not even what is kept between steps
            return None
    if high is None and guess - low < close:  # no more is to be found above
        return None
    if high is not None and not low < guess < high:
        guess = middle
    guess = guess // unit * unit
    return guess if low < guess and (high is None or guess < high) else None


def epoch_share(run: Run) -> float:
    """Steps of the largest shape that an epoch amounts to, by tokens or images."""
    stream, layout = run.data.stream, run.data.stream.layout
    largest = layout.empty()
    whole = layout.num_rows(largest) * largest.length
    indices = itertools.islice(stream.indices(), stream.steps_per_epoch)
    return sum(layout.num_rows(index) * index.length for index, _ in indices) / whole


def _results(
    run: Run, target: Target, batch: Any, found: Footprint | None, rows: int
) -> dict[str, Any]:
    now = num_rows(batch)
    results = {
        "target": target.name,
        "devices": len(target.devices),
        "mesh": dict(run.sharding.mesh.shape) if run.sharding is not None else {},
        "shape": list(main_shape(batch)),
        "memory_bytes": target.chip.memory,
        "fits": fits(found, target),
        "largest_rows": rows,
        "largest_batch": run.settings.train.batch_size * rows // now,
        "limit_found": rows < most_rows(run, widest_stage(run)),
        "steps_per_epoch": run.goal.steps_per_epoch,
    }
    if found is None:
        return results
    line, seconds = found.roofline, found.roofline.seconds
    return results | {
        "parameter_bytes": found.parameter_bytes,
        "moment_bytes": found.moment_bytes,
        "batch_bytes": found.batch_bytes,
        "temporary_bytes": found.temporary_bytes,
        "total_bytes": found.total_bytes,
        "kernels": line.kernels,
        "bytes_moved": line.num_bytes,
        "flops": line.flops,
        "sent": sent_by_kind(found.launched.sent),
        "roofline_ms": 1e3 * seconds,
        "epoch_seconds": seconds * epoch_share(run),
        "compile_seconds": found.compile_seconds,
    }


def sent_by_kind(sent: tuple[Collective, ...]) -> dict[str, dict[str, int]]:
    """By the kind of the collective: how many, and the bytes that a device sends."""
    found: dict[str, dict[str, int]] = {}
    for one in sent:
        row = found.setdefault(one.kind, {"count": 0, "wire_bytes": 0})
        row["count"] += 1
        row["wire_bytes"] += round(one.wire_bytes)
    return found


def _rows(results: dict[str, Any], target: Target, workdir: Path) -> list[tuple[str, Any]]:
    mesh = " x ".join(f"{name} {n}" for name, n in results["mesh"].items() if n > 1)
    memory = human_bytes(target.chip.memory)
    rows = [("devices", f"{results['devices']}{f' ({mesh})' if mesh else ''}, {memory} each")]
    rows.append(("step", " x ".join(map(str, results["shape"]))))
    if "total_bytes" not in results:
        rows.append(("fits", "no: the compiler finds no way to place it in the memory"))
    else:
        rows += _found_rows(results)
    most = results["largest_batch"]
    words = f"about {most:,} examples ({results['largest_rows']:,} rows)" if most else "none fits"
    words += "" if results["limit_found"] else ", or more: no larger one was tried"
    return [*rows, ("largest batch", words), ("numbers", workdir / "plan.json")]


def _found_rows(results: dict[str, Any]) -> list[tuple[str, Any]]:
    held = [
        ("each device holds", f"{human_bytes(results['parameter_bytes'])} of parameters"),
        ("", f"{human_bytes(results['moment_bytes'])} of moments"),
        ("", f"{human_bytes(results['batch_bytes'])} of the batch"),
        ("", f"{human_bytes(results['temporary_bytes'])} of activations and gradients at most"),
    ]
    verdict = "yes" if results["fits"] else "no"
    verdict += f": {human_bytes(results['total_bytes'])} at most, {SPARE:.0%} of the memory spared"
    sent = [
        ("" if i else "each sends a step", f"{human_bytes(x['wire_bytes'])} in {x['count']} {kind}")
        for i, (kind, x) in enumerate(sorted(results["sent"].items()))
    ]
    seconds, steps = results["epoch_seconds"], results["steps_per_epoch"]
    return [
        *held,
        ("fits", verdict),
        *(sent or [("each sends a step", "nothing")]),
        ("kernels a step", f"{results['kernels']:,}, {human_bytes(results['bytes_moved'])} moved"),
        ("products a step", human_flops(results["flops"])),
        ("roofline of a step", f"{results['roofline_ms']:.2f} ms, by memory, rate and launches"),
        ("of an epoch", f"{human_seconds(seconds)} ({steps:,} steps)"),
        ("compiling", human_seconds(results["compile_seconds"])),
    ]


def _shape(batch: Any) -> str:
    return " x ".join(map(str, main_shape(batch)))
