"""What an exported model is tried on: texts or images of its own run, or drawn ones."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.sources.rows import read_evaluation, take
from jaxtune.data.text import tokens
from jaxtune.data.text.examples import Examples
from jaxtune.export.signature import Signature
from jaxtune.run.config import read_settings
from jaxtune.run.saved import SavedModel

_ROWS = 256  # of the data
_DRAWN = 64  # where there is no data
_LENGTH = 128  # tokens of a drawn text, at most
_BATCH, _WORDS_BATCH = 32, 4  # of a language model, whose outputs are large
_MULTIPLE = 32  # of padded lengths: few are compiled for, and some rows of a batch end in padding

Inputs = dict[str, np.ndarray]
"""The inputs of a batch by name, in the layout of transformers: whole numbers, or images
[b c h w]."""


class Sample(NamedTuple):
    """Batches.

    Attributes:
      batches: of examples of like lengths.
      num_examples: of all.
      origin: where they come from, for a person.
      is_real: whether they are data, and not drawn.
    """

    batches: list[Inputs]
    num_examples: int
    origin: str
    is_real: bool


def sample_of(saved: SavedModel, signature: Signature) -> Sample:
    """Rows of the run's own data, held out of training; drawn inputs where they cannot be read.

    Args:
      saved: the model; where its folder lies in a run, `config.json` beside it names the data.
      signature: of the model.
    """
    config = saved.pretrained.folder.absolute().parent / "config.json"
    reason = "the model lies in no run"
    if config.is_file():
        try:
            return _of_run(saved, signature, config)
        except UserError as error:
            reason = f"the run's data cannot be read: {error}"
    batches = _drawn_images(signature) if signature.is_image else _drawn_texts(saved, signature)
    what = "images" if signature.is_image else "texts"
    return Sample(batches, _DRAWN, f"{_DRAWN} {what} drawn at random, for {reason}", False)


def _of_run(saved: SavedModel, signature: Signature, config: Path) -> Sample:
    """Of the run's test split, or else its validation split."""
    settings, task = read_settings(config), saved.task
    source = settings.data.source
    data = read_evaluation(settings.data, task.data.reader, saved.pretrained.class_names, source)
    split = next(name for name in ("test", "validation", "data") if name in data.splits)
    rows = data.splits[split]
    count = min(_ROWS, len(rows.inputs))
    chosen = take(rows, np.linspace(0, len(rows.inputs) - 1, count).astype(np.int64))
    examples, _ = task.data.encode(chosen, saved.processor, settings.data, iter)
    task.data.inputs.check(examples, saved.pretrained.config, saved.pretrained.folder)
    batches = _batches(saved, examples, signature)
    return Sample(batches, len(examples.lengths), f"{count} rows of the run's {split} split", True)


def _drawn_texts(saved: SavedModel, signature: Signature) -> list[Inputs]:
    """Random tokens, in texts of all lengths."""
    config, rng = saved.pretrained.config, np.random.default_rng(0)
    longest = min(_LENGTH, config.max_length)
    lengths = rng.integers(1, longest + 1, _DRAWN)
    ids = [rng.integers(0, config.vocab_size, length) for length in lengths]
    types = [rng.integers(0, max(config.type_vocab_size, 1), length) for length in lengths]
    return _batches(saved, Examples(tokens.join(ids, types, 0)), signature)


def _drawn_images(signature: Signature) -> list[Inputs]:
    """Normal noise."""
    rng, (_, *axes) = np.random.default_rng(0), signature.inputs["pixel_values"]
    shape = [size if isinstance(size, int) else 64 for size in axes]
    return [
        {"pixel_values": rng.normal(size=(_BATCH, *shape)).astype(np.float32)}
        for _ in range(_DRAWN // _BATCH)
    ]


def _batches(saved: SavedModel, examples: Any, signature: Signature) -> list[Inputs]:
    """All examples, ordered by length."""
    order, size = np.argsort(examples.lengths, kind="stable"), _BATCH
    if saved.task.head in ("causal_lm", "masked_lm"):
        size = _WORDS_BATCH
    limit = getattr(saved.pretrained.config, "max_length", 1)
    found = []
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        length = int(-(-examples.lengths[indices].max() // _MULTIPLE) * _MULTIPLE)
        batch = examples.collate(BatchIndex(indices, min(length, limit)), len(indices))
        if signature.is_image:
            found.append({"pixel_values": batch["pixel_values"].transpose(0, 3, 1, 2)})
        else:
            found.append({name: batch[name].astype(np.int64) for name in signature.inputs})
    return found
