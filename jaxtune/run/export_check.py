"""What an exported file gives, against what jaxtune gives for the same inputs, and how quickly."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core.types import ApplyFn, Params
from jaxtune.export.signature import Signature
from jaxtune.export.stablehlo import PROGRAM, batch_of, named_outputs
from jaxtune.models.choice import CHOICE
from jaxtune.models.pooling import EMBEDDING
from jaxtune.run.export_sample import Inputs, Sample
from jaxtune.tasks.reranking import RERANKING
from jaxtune.tasks.task import Task

Outputs = dict[str, np.ndarray]
"""By name, float32."""

Call = Callable[[Inputs], Outputs]


class Check(NamedTuple):
    """How a file compares with the model.

    Attributes:
      difference: the largest of a logit, padding left out.
      scale: the largest logit in size, at least 1.
      agreement: the share of decisions that are the same; None where outputs decide nothing.
      rates: examples a second of jaxtune and of the file, on the same padded batches in turn.
    """

    difference: float
    scale: float
    agreement: float | None
    rates: tuple[float, float]

    @property
    def relative(self) -> float:
        """The difference, in the scale of the logits."""
        return self.difference / self.scale


def compare(own: Call, other: Call, task: Task, sample: Sample) -> Check:
    """Runs both on each batch in turn.

    A shape that comes up for the first time is run once before, so that nothing that is timed is
    compiling.
    """
    seconds, seen, differences = np.zeros(2), set(), []
    scale, same = 1.0, []
    for inputs in sample.batches:
        shape = next(iter(inputs.values())).shape
        found = []
        for i, call in enumerate((own, other)):
            if shape not in seen:
                call(inputs)
            start = time.perf_counter()
            found.append(call(inputs))
            seconds[i] += time.perf_counter() - start
        seen.add(shape)
        for expected, given in zip(*(_real(outputs, inputs) for outputs in found), strict=True):
            # what is not finite differs by infinity
            differences.append(np.nan_to_num(np.abs(expected - given), nan=np.inf).max())
            scale = max(scale, float(np.abs(expected).max()))
        same += [a == b for a, b in zip(*(_decisions(task, o, inputs) for o in found), strict=True)]
    agreement = float(np.mean(np.concatenate([part.ravel() for part in same]))) if same else None
    ours, others = (sample.num_examples / seconds).tolist()
    return Check(float(max(differences)), scale, agreement, (ours, others))


def own_call(apply_fn: ApplyFn, params: Params, signature: Signature) -> Call:
    """Jaxtune's own model."""
    step = jax.jit(
        lambda params, batch: named_outputs(
            signature, apply_fn(params, batch, key=None, train=False)
        )
    )
    return lambda inputs: jax.device_get(step(params, batch_of(_as_jax(inputs))))


def stablehlo_call(file: Path) -> Call:
    """The program in a file, by JAX."""
    with np.load(file) as arrays:
        program = jax.export.deserialize(bytearray(arrays[PROGRAM]))
        params = jax.device_put({name: arrays[name] for name in arrays.files if name != PROGRAM})
    call = jax.jit(program.call)
    return lambda inputs: jax.device_get(call(params, **_as_jax(inputs)))


def onnx_call(file: Path) -> Call:
    """The graph in a file, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(inputs: Inputs) -> Outputs:
        return dict(zip(names, map(np.asarray, session.run(None, inputs)), strict=True))

    return call


def _as_jax(inputs: Inputs) -> dict[str, Any]:
    """Whole numbers as int32, which JAX has."""
    return {
        name: jnp.asarray(values, jnp.int32 if values.dtype == np.int64 else None)
        for name, values in inputs.items()
    }


def _real(outputs: Outputs, inputs: Inputs) -> Iterator[np.ndarray]:
    """The outputs in the order of their names, of tokens that are no padding."""
    mask = inputs.get("attention_mask")
    for _, values in sorted(outputs.items()):
        per_token = mask is not None and values.shape[:2] == mask.shape
        yield values[mask > 0] if mask is not None and per_token else values


def _decisions(task: Task, outputs: Outputs, inputs: Inputs) -> Iterator[np.ndarray]:
    """What follows from the outputs: classes, labels, words, or ends of spans."""
    numbers = task.head in (EMBEDDING, CHOICE) or task.name == RERANKING.name
    if task.problem_type == "regression" or numbers:
        return
    if task.head == "span":
        for _, values in sorted(outputs.items()):
            yield np.where(inputs["attention_mask"] > 0, values, -np.inf).argmax(-1)
        return
    for values in _real(outputs, inputs):
        yield values > 0 if task.name == "multi_label" else values.argmax(-1)
