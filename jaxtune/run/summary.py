"""The numbers of a run in words: before the first step, and after the last."""

import itertools
import sys
import threading
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtune import __version__
from jaxtune.analysis.audit import (
    HEADER,
    Updates,
    audit_rows,
    count_flops,
    find_groups,
    flops_line,
)
from jaxtune.core import paths, trees
from jaxtune.core.units import human_bytes, human_seconds
from jaxtune.data.batching import batches
from jaxtune.models.observed import make_observed_apply
from jaxtune.parallel import multihost
from jaxtune.parallel.sharding import spell
from jaxtune.run.attention_rows import attention_rows
from jaxtune.run.calibrate import calibration_rows
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, Moment
from jaxtune.run.loop import Fit
from jaxtune.run.sampling_rows import sampling_rows
from jaxtune.run.setup import Run, make_tx
from jaxtune.run.trackers import finite
from jaxtune.run.tuning_words import tuning_words
from jaxtune.run.update_words import of_average, optimizer_rows
from jaxtune.settings import PrecisionSettings
from jaxtune.settings.distillation import DistillationSettings
from jaxtune.training.compiled import Compiled, main_shape
from jaxtune.tuning import partition

_SAMPLE = 100  # batches that the share of padding is estimated by


def start_rows(run: Run, workdir: Path) -> list[tuple[str, Any]]:
    """What trains, what is frozen, sizes, shapes: one (name, value) a row."""
    settings, pretrained = run.settings, run.pretrained
    rows = [("model", f"{settings.model.path} ({pretrained.design.source.family.model_type})")]
    rows += [("", line) for line in pretrained.report.lines()]
    total = trees.count(run.params)
    trainable, _ = partition.partition(run.params, run.tuning.stage_labels[0])
    count = trees.count(trainable)
    rows += [
        ("tuning", tuning_words(run.settings.tuning, run.tuning.strategy)),
        (
            "trainable",
            f"{count:,} of {total:,} parameters ({count / total:.1%}), {_size(trainable)}",
        ),
        *optimizer_rows(settings.optimizer, trainable),
        ("precision", _precision(settings.precision)),
        *_teacher_rows(settings.distillation),
        ("data", settings.data.source.path),
    ]
    rows += [(f"  {split}", _sizes(run, part)) for split, part in run.data.examples.items()]
    rows += sampling_rows(run)
    rows += [("", note) for note in run.data.notes]
    if pretrained.class_names:
        names = ", ".join(pretrained.class_names[:10])
        rows.append(("classes", f"{len(pretrained.class_names)}: {names}"))
    rows += [
        *attention_rows(run),
        ("batches", f"{settings.train.batch_size} {_shapes(run)}"),
        *_memory_rows(run),
        ("steps", f"{run.goal.num_steps} ({run.goal.steps_per_epoch} an epoch)"),
        ("best by", f"{run.goal.best_metric} on validation"),
        ("device", f"{jax.device_count()} x {jax.devices()[0].device_kind}, seed {settings.seed}"),
        *_sharding_rows(run, trainable),
        ("workdir", workdir),
    ]
    return rows


def _teacher_rows(settings: DistillationSettings) -> list[tuple[str, Any]]:
    """What is learnt from, if from a teacher."""
    if settings.teacher is None:
        return []
    words = f"{settings.alpha:g} of the loss at temperature {settings.temperature:g}"
    if settings.hidden_weight:
        words += f", hidden states {settings.hidden_weight:g}"
    return [("teacher", f"{settings.teacher} ({words})")]


def show_groups(run: Run, report: Report) -> None:
    """The table of what trains, with rates and bytes."""
    found = find_groups(run.params, run.tuning.stage_labels[0], _updates(run))
    count = len(run.tuning.stage_labels)
    report.grid(f"stage 1 of {count}" if count > 1 else "parameters", HEADER, audit_rows(found))


class Cost:
    """The share of a full step that one costs, said once the first step is taken.

    It is counted in the background: by then the processor is busy with what needs no Python.

    Attributes:
      hook: of the training loop; begins to count.
      flops: of one step, and of a full one; None where unknown.
    """

    def __init__(self, run: Run, report: Report) -> None:
        """Nothing is counted yet; of several processes, the first one counts."""
        model, read = run.pretrained, run.task.loss.read
        apply_fn = run.tuning.train_fn(model.module)
        batch: Any = _weighed_batch(run)
        shapes: Any = jax.eval_shape(lambda params: params, run.params)
        shape, unit = main_shape(batch), "pixels" if _reads_images(run) else "tokens"
        self._name = f"{' x '.join(map(str, shape[:3]))} {unit}"
        self._report = report
        adapted = run.tuning.apply_fn is not model.apply_fn
        plain = model.apply_fn
        if run.tuning.observed:
            plain = make_observed_apply(model.module, 0, run.tuning.observed)
        base = (read(plain), model.design.shapes) if adapted else None
        self._count = partial(  # and not the run, whose parameters would be kept
            count_flops,
            *(read(apply_fn), run.goal.loss_fn, shapes, run.tuning.stage_labels[0], batch),
            *(_updates(run), base),
        )
        self.flops: tuple[float | None, float | None] = None, None
        self._thread = threading.Thread(target=self._tell, name="counting")
        self.hook = Hook(lambda moment: None, lambda moment: False, self._begin)

    def _begin(self, moment: Moment) -> None:
        if moment.info is not None and self._thread.ident is None and multihost.is_first():
            self._thread.start()

    def _tell(self) -> None:
        try:
            self.flops = self._count()
        except Exception:  # what a number to read along with cannot be had for ends no run
            self.flops = None, None
        self._report.line(flops_line(*self.flops, self._name))

    def finish(self) -> None:
        """Waits until it is said."""
        if self._thread.ident is not None:
            self._thread.join()


def results(
    run: Run,
    fit: Fit,
    scores: Mapping[str, Mapping[str, float]],
    eval_step: Compiled,
    seconds: float,
) -> dict[str, Any]:
    """What results.json holds; None for what is unknown or not a number."""
    last, tally = fit.last, fit.last.tally
    step, progress = last.step, last.progress
    programs = [step for step, _ in fit.programs]
    trunks = [trunk for _, trunk in fit.programs if trunk is not None]
    return {
        "task": run.task.name,
        "scores": {
            split: {name: finite(value) for name, value in part.items()}
            for split, part in scores.items()
        },
        "best_metric": run.goal.best_metric,
        "best_step": progress.best_step,
        "steps": step,
        "epochs": step / run.goal.steps_per_epoch,
        "stopped_early": step < run.goal.num_steps,
        "resumed_from_step": fit.first_step or None,
        "seconds": seconds,
        "train_seconds": tally.seconds,
        "stage_starts": list(progress.stage_starts),
        "compile_seconds": sum(program.seconds for program in (*programs, *trunks, eval_step)),
        "examples_per_second": tally.examples / tally.seconds if tally.seconds else None,
        "tokens_per_second": None
        if _reads_images(run) or not tally.seconds
        else tally.tokens / tally.seconds,
        "compiled_train_shapes": [list(s) for program in programs for s in program.shapes],
        "compiled_eval_shapes": [*map(list, eval_step.shapes)],
        "peak_memory_bytes": peak_memory_bytes(),
        "ema_decay": run.settings.optimizer.ema_decay,
        "trainable_parameters": trees.count(last.stage.state.params),
        "parameters": trees.count(run.params),
        "classes": list(run.pretrained.class_names),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"jaxtune": __version__, "python": sys.version.split()[0]}
        | {name: version(name) for name in ("jax", "flax", "optax")},
        "notes": list(run.data.notes),
    }


def end_rows(results: Mapping[str, Any], workdir: Path) -> list[tuple[str, Any]]:
    """Scores, speed, and where things are."""
    rows = []
    for split, part in results["scores"].items():
        values = [f"{name} {_number(value)}" for name, value in part.items()]
        rows.append((split, "  ".join(values)))
    rows += calibration_rows(results)
    rows.append(("best step", f"{results['best_step']} of {results['steps']}{of_average(results)}"))
    if results["examples_per_second"]:
        rate = f"{results['examples_per_second']:.1f} examples/s"
        tokens = results["tokens_per_second"]
        more = f", {tokens:,.0f} tokens/s" if tokens else ""
        rows.append(("speed", f"{rate}{more} in training"))
    shapes = len(results["compiled_train_shapes"]) + len(results["compiled_eval_shapes"])
    compiling, peak = human_seconds(results["compile_seconds"]), results["peak_memory_bytes"]
    rows += [
        (
            "time",
            f"{human_seconds(results['seconds'])}, {compiling} of it compiling {shapes} shapes",
        ),
        ("memory", f"{human_bytes(peak)} at the peak" if peak else "unknown"),
        ("model", f"{workdir / 'model'} ({_for_whom(workdir)})"),
        ("scores", workdir / "results.json"),
    ]
    return rows


def _for_whom(workdir: Path) -> str:
    if (workdir / "model" / "adapter_config.json").exists():
        return "what was trained, without the base: for jaxtune.predict"
    if (workdir / "adapter").is_dir():
        return "merged, for transformers and jaxtune.predict; for peft: adapter/ beside it"
    return "for transformers and jaxtune.predict"


def peak_memory_bytes() -> int | None:
    """The device's own count where it has one, else the largest resident size of this process.

    None where the system tells neither.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _updates(run: Run) -> Updates:
    chosen = run.settings.optimizer
    rate, decay = chosen.learning_rate, chosen.weight_decay
    return Updates(rate, decay, run.goal.scaler, run.tuning.multipliers)


def _sharding_rows(run: Run, trainable: Any) -> list[tuple[str, str]]:
    """The mesh, which parameters it shares out how, and what each device keeps."""
    sharding = run.sharding
    if sharding is None:
        return []
    sizes = ", ".join(f"{name} {size}" for name, size in sharding.mesh.shape.items())
    count = jax.process_count()
    told = f"{sharding.mode}: {sizes}" + (f", in {count} processes" if count > 1 else "")
    rows = [("parallel", told)]
    flat, found = paths.flatten(run.params), {}
    for name, spec in sharding.specs.items():
        found.setdefault(spec, []).append(name)
    for spec, names in found.items():
        if any(spec):
            example = max(names, key=lambda name: flat[name].size)
            rows.append(("", f"{spell(spec)}: {len(names)} parameters, such as {example}"))
    moments = jax.eval_shape(make_tx(run, 0).init, trainable)
    kept = (sharding.bytes_per_device(run.params), sharding.bytes_per_device(moments))
    texts = [human_bytes(size) for size in kept]
    rows.append(("", f"each device keeps {texts[0]} of parameters and {texts[1]} of moments"))
    return rows


def _memory_rows(run: Run) -> list[tuple[str, str]]:
    """What is done to need less memory."""
    train, rows = run.settings.train, []
    if train.num_microbatches > 1:
        size = train.batch_size // train.num_microbatches
        rows.append(f"in {train.num_microbatches} parts of {size}, whose gradients are added")
    if train.gradient_checkpointing:
        rows.append("each layer is computed again in the backward pass")
    return [("", row) for row in rows]


def _precision(settings: PrecisionSettings) -> str:
    frozen = "" if settings.frozen_dtype == "float32" else f", frozen ones {settings.frozen_dtype}"
    return f"{settings.compute_dtype} products, float32 weights{frozen}"


def _reads_images(run: Run) -> bool:
    return run.task.head == "image"


def _empty_batch(run: Run) -> dict[str, np.ndarray]:
    """A batch of the largest shape, of which only the shape is looked at."""
    return run.data.stream.empty()


def _weighed_batch(run: Run) -> dict[str, np.ndarray]:
    """A batch of the largest shape, of which as many tokens are scored as of the first one."""
    batch = _empty_batch(run)
    if batch["weight"].ndim == 1:  # of examples
        return batch
    index, epoch = next(run.data.stream.indices())
    share = np.mean(run.data.stream.collate(index, epoch)["weight"] != 0)
    weight = np.arange(batch["weight"].size) < share * batch["weight"].size
    return batch | {"weight": weight.reshape(batch["weight"].shape).astype(np.float32)}


def _sizes(run: Run, examples: Any) -> str:
    lengths, groups = examples.lengths, getattr(examples, "groups", None)
    if _reads_images(run):
        return f"{len(lengths):,} images"
    what = "examples" if groups is None else f"texts in {len(groups.sizes):,} groups"
    return f"{len(lengths):,} {what}, {lengths.mean():.1f} tokens, at most {lengths.max()}"


def _shapes(run: Run) -> str:
    if _reads_images(run):
        height, width = _empty_batch(run)["pixel_values"].shape[1:3]
        return f"images of {height} x {width} pixels"
    stream, layout = run.data.stream, run.data.stream.layout
    what = "examples" if stream.groups is None else "groups"
    count = min(_SAMPLE, stream.steps_per_epoch)
    placed = [index for index, _ in itertools.islice(stream.indices(), count)]
    waste = batches.padding_waste(placed, stream.examples.lengths, layout.num_rows)
    if layout.kind == "packed":
        shapes = ", ".join(f"{rows} x {length}" for rows, length in layout.shapes())
        return f"{what}, packed into {shapes} tokens ({waste:.1%} padding)"
    shapes = ", ".join(map(str, layout.lengths))
    return f"{what}, padded to {shapes} tokens ({waste:.1%} padding)"


def _size(tree: Any) -> str:
    return human_bytes(trees.num_bytes(tree))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
