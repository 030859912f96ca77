"""The numbers of a run in words: before the first step, and after the last."""

import dataclasses
import resource
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxtune import __version__, trees
from jaxtune.compiled import Compiled
from jaxtune.data import batches
from jaxtune.loggers import finite
from jaxtune.report import human_bytes, human_seconds
from jaxtune.run import Run
from jaxtune.tuning import partition


def start_rows(run: Run, workdir: Path) -> list[tuple[str, Any]]:
    """What trains, what is frozen, sizes, shapes: one (name, value) a row."""
    settings, pretrained = run.settings, run.pretrained
    rows = [("model", f"{settings.model.path} ({pretrained.family.model_type})")]
    rows += [("", line) for line in pretrained.report.lines()]
    total = trees.count(run.params)
    trainable, frozen = partition.partition(run.params, run.stages[0])
    count = trees.count(trainable)
    moments = _size(jax.eval_shape(run.optimizer(0).init, trainable))
    rows += [
        ("tuning", _fields(**dataclasses.asdict(settings.tuning))),
        (
            "trainable",
            f"{count:,} of {total:,} parameters ({count / total:.1%}), {_size(trainable)}",
        ),
        ("frozen", f"{trees.count(frozen):,} parameters, {_size(frozen)}"),
        (
            "optimizer",
            f"{_optimizer(run)}, {moments} of state",
        ),
        ("precision", f"{settings.precision.compute_dtype} products, float32 weights"),
        ("data", settings.data.path),
    ]
    for split, examples in run.examples.items():
        lengths = examples.lengths
        mean, most = lengths.mean(), lengths.max()
        rows.append((f"  {split}", f"{len(lengths):,} examples, {mean:.1f} tokens, at most {most}"))
    rows += [("", note) for note in run.notes]
    if pretrained.class_names:
        names = ", ".join(pretrained.class_names[:10])
        rows.append(("classes", f"{len(pretrained.class_names)}: {names}"))
    rows += [
        ("batches", f"{settings.train.batch_size} examples, padded to {_shapes(run)}"),
        ("steps", f"{run.num_steps} ({run.steps_per_epoch} an epoch)"),
        ("best by", f"{run.best_metric} on validation"),
        ("device", f"{jax.device_count()} x {jax.devices()[0].device_kind}, seed {settings.seed}"),
        ("workdir", workdir),
    ]
    return rows


def results(
    run: Run,
    fit: Any,
    scores: Mapping[str, Mapping[str, float]],
    eval_step: Compiled,
    seconds: float,
) -> dict[str, Any]:
    """What results.json holds; None for what is unknown or not a number."""
    step = int(fit.stage.state.step)
    return {
        "task": run.task.name,
        "scores": {
            split: {name: finite(value) for name, value in part.items()}
            for split, part in scores.items()
        },
        "best_metric": run.best_metric,
        "best_step": fit.progress.best_step,
        "steps": step,
        "epochs": step / run.steps_per_epoch,
        "stopped_early": step < run.num_steps,
        "resumed_from_step": fit.first_step or None,
        "seconds": seconds,
        "train_seconds": fit.seconds,
        "stage_starts": list(fit.progress.stage_starts),
        "compile_seconds": sum(program.seconds for program in (*fit.programs, eval_step)),
        "examples_per_second": fit.examples / fit.seconds if fit.seconds else None,
        "tokens_per_second": fit.tokens / fit.seconds if fit.seconds else None,
        "compiled_train_shapes": [s for program in fit.programs for s in program.shapes],
        "compiled_eval_shapes": eval_step.shapes,
        "peak_memory_bytes": peak_memory_bytes(),
        "trainable_parameters": trees.count(fit.stage.state.params),
        "parameters": trees.count(run.params),
        "classes": list(run.pretrained.class_names),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"jaxtune": __version__, "python": sys.version.split()[0]}
        | {name: version(name) for name in ("jax", "flax", "optax")},
        "notes": run.notes,
    }


def end_rows(results: Mapping[str, Any], workdir: Path) -> list[tuple[str, Any]]:
    """Scores, speed, and where things are."""
    rows = []
    for split, part in results["scores"].items():
        values = [f"{name} {_number(value)}" for name, value in part.items()]
        rows.append((split, "  ".join(values)))
    rows.append(("best step", f"{results['best_step']} of {results['steps']}"))
    if results["examples_per_second"]:
        rate = f"{results['examples_per_second']:.1f} examples/s"
        rows.append(("speed", f"{rate}, {results['tokens_per_second']:,.0f} tokens/s in training"))
    shapes = len(results["compiled_train_shapes"]) + len(results["compiled_eval_shapes"])
    compiling = human_seconds(results["compile_seconds"])
    rows += [
        (
            "time",
            f"{human_seconds(results['seconds'])}, {compiling} of it compiling {shapes} shapes",
        ),
        ("memory", f"{human_bytes(results['peak_memory_bytes'])} at the peak"),
        ("model", f"{workdir / 'model'} (for transformers and jaxtune.predict)"),
        ("scores", workdir / "results.json"),
    ]
    return rows


def peak_memory_bytes() -> int:
    """The device's own count where it has one, else the largest resident size of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _optimizer(run: Run) -> str:
    o = run.settings.optimizer
    clip = f", clip {o.clip_norm}" if o.clip_norm else ""
    warm = f"warm-up {o.warmup_fraction:.0%}"
    return f"{o.name}, {o.schedule} from {o.learning_rate:g}, {warm}, decay {o.weight_decay}{clip}"


def _shapes(run: Run) -> str:
    lengths, size = run.examples["train"].lengths, run.settings.train.batch_size
    order = batches.train_order(lengths, run.lengths, size, run.settings.seed, 0)
    waste = batches.padding_waste(order, lengths, size)
    return f"{', '.join(map(str, run.lengths))} tokens ({waste:.0%} padding)"


def _fields(name: str, **fields: Any) -> str:
    given = ", ".join(f"{key}={value}" for key, value in fields.items() if value not in (None, ()))
    return f"{name} ({given})" if given else name


def _size(tree: Any) -> str:
    return human_bytes(trees.num_bytes(tree))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
