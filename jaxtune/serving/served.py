"""A saved model that answers: inputs to examples, batches to outputs, outputs to records."""

import base64
import copy
import io
import queue
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.images.image_examples import DecodedImages, ImageExamples, decode_all
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text.examples import joined
from jaxtune.run import predictions
from jaxtune.run.evaluate import by_example
from jaxtune.run.saved import SavedModel
from jaxtune.serving.batcher import Part
from jaxtune.serving.inputs import Asked, asked_of, read_inputs
from jaxtune.serving.shapes import Filled, Grid, grid_of_images, grid_of_texts
from jaxtune.tasks.records import Record

ENCODERS = 2  # threads that make examples of inputs
_TOKENS = {"cpu": 1024}  # of a batch; more are no faster, and take longer
_TOKENS_ELSEWHERE = 16384
_IMAGES = {"cpu": 8}
_IMAGES_ELSEWHERE = 64


class Encoded(NamedTuple):
    """The inputs of a request.

    Attributes:
      rows: one for each input.
      examples: of the rows, as records are decoded with.
      ready: the same, as they go into batches.
    """

    rows: Rows
    examples: Any
    ready: Any


class Served:
    """A saved model as requests meet it. What it does may be asked of several threads at once."""

    def __init__(self, saved: SavedModel) -> None:
        """Nothing is compiled yet."""
        self.saved, self.asked = saved, asked_of(saved)
        self.grid = _choose_grid(saved, self.asked)
        # A tokenizer is told how to cut, and then asked: two threads would mix that up.
        self._processors: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(ENCODERS):
            self._processors.put(copy.deepcopy(saved.processor))

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """The examples of a request.

        Args:
          inputs: JSON values or uploads, at least one.

        Raises:
          UserError: names the input that is wrong.
        """
        saved = self.saved
        rows = read_inputs(saved.task, self.asked, inputs)
        processor = self._processors.get()
        try:
            examples, _ = saved.task.data.encode(rows, processor, saved.data, iter)
        finally:
            self._processors.put(processor)
        pretrained = saved.pretrained
        saved.task.data.inputs.check(examples, pretrained.config, pretrained.folder)
        is_image = isinstance(examples, ImageExamples)
        singles = getattr(examples, "texts", examples)  # those of groups, one by one
        return Encoded(rows, examples, decode_all(examples) if is_image else singles)

    def run(self, parts: Sequence[Part], filled: Filled) -> list[np.ndarray]:
        """The outputs of each example of a batch.

        Args:
          parts: examples of requests.
          filled: the shape of the batch, and which of them are in each row.
        """
        examples = _as_one(parts)
        index = _index(self.grid, filled, np.arange(len(parts)))
        batch = examples.collate(index, filled.shape.rows)
        _, values = jax.device_get(self.saved.step(self.saved.pretrained.params, batch))
        outputs: dict[int, np.ndarray] = {}
        per_token = self.saved.task.output.per_token
        for i, output in by_example(index, values, examples.lengths, per_token):
            outputs[i] = np.asarray(output, np.float32)
        return [outputs[i] for i in range(len(parts))]

    def warm_up(self) -> Iterator[None]:
        """Compiles for each shape and runs it once, the cheapest first; yields after each."""
        ready = self.encode([_sample(self.asked)]).ready
        for shape in self.grid.shapes:
            self.run([(ready, 0)], Filled(shape, ((0,), *[()] * (shape.rows - 1))))
            yield

    def records(
        self, encoded: Encoded, outputs: list[np.ndarray], top_k: int | None
    ) -> list[Record]:
        """A record for each input.

        Args:
          encoded: from `encode`.
          outputs: of its examples.
          top_k: classes whose probability is told; None for all.
        """
        saved = self.saved
        values = outputs if saved.task.output.per_token else np.stack(outputs)
        return [*predictions.records(saved, values, encoded.examples, encoded.rows, top_k)]


def _choose_grid(saved: SavedModel, asked: Asked) -> Grid:
    platform = jax.default_backend()
    if asked.kind == "images":
        return grid_of_images(_IMAGES.get(platform, _IMAGES_ELSEWHERE))
    tokens = _TOKENS.get(platform, _TOKENS_ELSEWHERE)
    return grid_of_texts(saved.data.tokens.max_length, tokens)


def _as_one(parts: Sequence[Part]) -> Any:
    """Examples of several requests as one."""
    if isinstance(parts[0][0], DecodedImages):
        return DecodedImages([images.pixels[i] for images, i in parts])
    return joined(parts)


def _index(grid: Grid, filled: Filled, indices: np.ndarray) -> BatchIndex:
    shape, rows = filled
    if not grid.packed:
        return BatchIndex(np.array([i for row in rows for i in row], np.int64), shape.length)
    return BatchIndex(indices, shape.length, rows, grid.slots(shape.length))


def _sample(asked: Asked) -> Any:
    """An input of the kind that the model reads."""
    if asked.kind == "questions":
        return dict.fromkeys(asked.columns, "a")
    if asked.kind == "choices":
        return ["a", ["a", "a"]]
    if asked.kind == "images":
        return _pixel()
    return ["a", "a"] if asked.kind == "pairs" else "a"


def _pixel() -> str:
    """A PNG of one pixel, in base64."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode()
