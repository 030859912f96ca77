"""What a teacher gives for the training rows, computed once and kept from run to run."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch, Params
from jaxtune.core.units import human_bytes, human_seconds
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.layout import Layout
from jaxtune.data.batching.packing import Use
from jaxtune.data.batching.stream import Stream
from jaxtune.frozen.store import ActivationCache
from jaxtune.frozen.taught import Lesson, TaughtExamples
from jaxtune.io import array_cache
from jaxtune.io.json_files import sha256_of
from jaxtune.models.design import Design
from jaxtune.models.family import check_shared_heads
from jaxtune.models.observed import make_observed_apply
from jaxtune.models.pretrained import load_weights
from jaxtune.models.registry import make_apply
from jaxtune.models.token_costs import program_cost
from jaxtune.models.weights import open_weights
from jaxtune.parallel.sharding import Sharding, make_sharding, put
from jaxtune.run.console import Report
from jaxtune.run.evaluate import run_all
from jaxtune.run.model_layouts import layouts_for
from jaxtune.run.teacher import Lessons
from jaxtune.settings import Settings
from jaxtune.tasks.task import Task
from jaxtune.training.eval_step import EvalStep
from jaxtune.training.sharded_step import compile_eval

_FORMAT = 1  # of what is kept from run to run
_TOLD = ("what config.distillation.teacher gives", "Set config.distillation.hidden_weight=0")


def attend(
    lessons: Lessons | None,
    settings: Settings,
    task: Task,
    stream: Stream,
    folder: Path | None,
    report: Report,
    with_values: bool,
) -> tuple[Stream, str | None]:
    """The stream of a run whose batches have what the teacher gives; as it is without a teacher.

    Args:
      lessons: what is to be learnt.
      settings: of the run.
      task: of teacher and student.
      stream: the student's examples.
      folder: as of `learn`.
      report: shows the progress.
      with_values: False plans a run, whose batches have shapes alone.

    Returns:
      (the stream, the digest of the teacher's weights where it ran).
    """
    if lessons is None:
        return stream, None
    if with_values:
        examples, digest = learn(lessons, stream.examples, settings, task, folder, report)
        return stream._replace(examples=examples), digest
    nothing = np.zeros(len(stream.examples.lengths), np.int64)
    lesson = _make_lesson(lessons, stream.examples, settings, task, None, nothing)
    return stream._replace(examples=TaughtExamples(stream.examples, lesson)), None


def learn(
    lessons: Lessons,
    student: Any,
    settings: Settings,
    task: Task,
    folder: Path | None,
    report: Report,
) -> tuple[TaughtExamples, str]:
    """The examples with what the teacher gives for them, and the digest of its weights.

    Args:
      lessons: what is to be learnt.
      student: its training examples.
      settings: of the run.
      task: says what outputs are.
      folder: keeps outputs from run to run, and holds the file of states that are too many for
        memory; None keeps none, and holds them in the system's folder.
      report: shows the progress.

    Raises:
      UserError: weights that are none or not the expected ones, or a tensor that does not fit.
    """
    source = lessons.design.source
    digest = sha256_of(open_weights(source.path).files)
    expected = settings.distillation.teacher_sha256
    if expected not in (None, digest):
        raise UserError(
            f"{source.path}: the teacher's weights have sha256 {digest}, expected {expected}."
            " Bring them back, or correct config.distillation.teacher_sha256."
        )
    sharding = _sharding_of(settings, lessons.design)
    layout = _layout_of(settings, task, lessons, sharding)
    lesson = _make_lesson(lessons, student, settings, task, folder)
    key = None if folder is None else _key(lessons, settings, layout, digest)
    found = None if key is None or folder is None else array_cache.load(folder, key)
    told = f"{len(student.lengths)} training examples, {_size(lesson)}"
    if found is not None and found[0]["outputs"].size == lesson.outputs.values.size:
        lesson.outputs.put_all(found[0]["outputs"])
        report.line(f"teacher {source.path}: outputs for {told}, kept from a run before")
    else:
        start = time.perf_counter()
        _run_teacher(lessons, lesson, layout, settings, sharding, report)
        seconds = human_seconds(time.perf_counter() - start)
        report.line(f"teacher {source.path}: ran once over {told}, in {seconds}")
        if key is not None and folder is not None:
            with contextlib.suppress(OSError), array_cache.keep(folder, key, {}) as append:
                append({"outputs": lesson.outputs.values.reshape(-1)})
    return TaughtExamples(student, lesson), digest


def _make_lesson(
    lessons: Lessons,
    student: Any,
    settings: Settings,
    task: Task,
    folder: Path | None,
    sizes: np.ndarray | None = None,
) -> Lesson:
    """Room for what the teacher gives; `sizes` in the place of those of the examples."""
    cache, per_token = settings.activation_cache, task.output.per_token
    lengths = student.lengths
    room = partial(
        ActivationCache, max_memory_bytes=cache.max_memory_bytes, folder=folder, told=_TOLD
    )
    own = lengths if per_token else np.ones_like(lengths)
    shape = (lessons.design.outputs.size,)
    outputs = room(own if sizes is None else sizes, shape, np.float32)
    if not lessons.states.teacher:
        return Lesson(outputs, per_token)
    module = lessons.design.module
    batch = lessons.examples.collate(BatchIndex(np.arange(0), 8), 1)
    x: Any = jax.eval_shape(
        lambda params, batch: module.apply({"params": params}, batch, method="embed"),
        lessons.design.shapes,
        batch,
    )
    places = x.shape[1] if "pixel_values" in batch else None
    own = lengths if places is None else lengths * places
    shape = (len(lessons.states.teacher), x.shape[-1])
    states = room(own if sizes is None else sizes, shape, jnp.dtype(cache.dtype))
    return Lesson(outputs, per_token, states, places)


def _run_teacher(
    lessons: Lessons,
    lesson: Lesson,
    layout: Layout,
    settings: Settings,
    sharding: Sharding | None,
    report: Report,
) -> None:
    """Fills a lesson; the teacher's weights are gone afterwards."""
    params = load_weights(lessons.design, put=partial(put, sharding)).params
    step = compile_eval(_make_step(lessons), sharding)
    no_holes = jax.tree.map(lambda _: None, params)
    examples = lessons.examples
    with report.bar("running the teacher", len(examples.lengths)) as update:
        results = run_all(lambda batch: step(params, no_holes, batch), examples, layout, sharding)
        for index, result in results:
            outputs, states = jax.device_get(result)[1]
            lesson.keep(index, outputs, states)
            update(len(index.indices))
    trees.free(params)
    if not np.isfinite(lesson.outputs.values).all():
        raise UserError(
            f"config.distillation.teacher: {lessons.design.source.path} gives outputs that are not"
            " finite: its weights are damaged, or too large for the compute dtype."
        )


def _make_step(lessons: Lessons) -> EvalStep:
    """(parameters, no others, batch) -> (nothing, (outputs, states)) of the teacher."""
    module, order = lessons.design.module, tuple(sorted({*lessons.states.teacher}))
    apply_fn: Any = make_apply(module)
    if lessons.states.teacher:
        apply_fn = make_observed_apply(module, 0, order)

    def step(params: Params, frozen: Params, batch: Batch) -> tuple[dict[str, Any], Any]:
        del frozen
        outputs, states = apply_fn(params, batch, key=None, train=False), None
        if lessons.states.teacher:
            outputs, found = outputs
            states = jnp.stack([found[order.index(i)] for i in lessons.states.teacher], axis=2)
        outputs = outputs.astype(jnp.float32)
        return {}, (outputs if lessons.order is None else outputs[..., lessons.order], states)

    return step


def _sharding_of(settings: Settings, design: Design) -> Sharding | None:
    """The run's mesh, with the teacher's parameters on it."""
    parallel = dataclasses.replace(settings.parallel, rules=())
    sharding = make_sharding(parallel, design.source.family.sharding_rules, design.shapes)
    check_shared_heads(design.source.config, sharding)
    return sharding


def _layout_of(
    settings: Settings, task: Task, lessons: Lessons, sharding: Sharding | None
) -> Layout:
    """How the teacher's batches are made."""
    design = lessons.design
    kind = "bucketed" if task.head == "image" else settings.data.tokens.layout
    return layouts_for(design, kind)(
        [lessons.examples.lengths],
        settings.train.eval_batch_size,
        multiple=1 if sharding is None else sharding.num_shares,
        use=Use(program_cost(design)),
    )


def _key(lessons: Lessons, settings: Settings, layout: Layout, digest: str) -> str | None:
    """Of all that the teacher's outputs follow from; None where they are not to be kept."""
    tokens = getattr(lessons.examples, "tokens", None)
    if tokens is None or lessons.states.teacher or jax.process_count() > 1:
        return None  # images, and much for a disk; and processes must all compute, or none
    device, parallel = jax.devices()[0], settings.parallel
    order = None if lessons.order is None else lessons.order.tolist()
    told: Sequence[Any] = (
        *(_FORMAT, jax.__version__, device.device_kind, jax.device_count(), repr(parallel)),
        *(digest, sha256_of([lessons.design.source.path / "config.json"])),
        *(repr(settings.precision), repr(layout), order),
    )
    found = hashlib.sha256(json.dumps(told).encode())
    for values in (tokens.input_ids, tokens.token_type_ids, tokens.offsets):
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _size(lesson: Lesson) -> str:
    kept = [lesson.outputs, *([lesson.states] if lesson.states is not None else [])]
    where = "in memory" if all(cache.in_memory for cache in kept) else "in a file"
    return f"{human_bytes(sum(cache.num_bytes for cache in kept))} {where}"
