"""What a saved model gives for rows: records, scores, states; of files or of rows in memory."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch, Params
from jaxtune.data.batching.layout import Layout
from jaxtune.data.batching.packing import Use
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.memory import InMemory, from_memory
from jaxtune.data.sources.rows import Rows
from jaxtune.data.sources.table import Table
from jaxtune.data.text import choice_tables, text_tables
from jaxtune.export.adapter_folder import check_head
from jaxtune.models.choice import CHOICE
from jaxtune.models.heads import mean_tokens
from jaxtune.models.places import pick, places_of
from jaxtune.models.pooling import EMBEDDING, POOLING_HEADS
from jaxtune.models.token_costs import program_cost
from jaxtune.run import beside
from jaxtune.run.console import Report
from jaxtune.run.evaluate import Advance, NonFiniteError, all_scores, predict_all
from jaxtune.run.model_layouts import layouts_for
from jaxtune.run.saved import SavedModel
from jaxtune.settings.data import ColumnSettings
from jaxtune.tasks.records import Records
from jaxtune.tasks.reranking import RERANKING
from jaxtune.tasks.task import Task, check_top_k, records_of
from jaxtune.training.compiled import Compiled

How = Literal["own", "mean", "first", "last"]


def predict(
    saved: SavedModel,
    inputs: InMemory | str | Path,
    batch_size: int,
    top_k: int | None = None,
    columns: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """One record for each row, in order.

    Args:
      saved: the model.
      inputs: a sequence of texts, pairs or images, rows in memory, or a file or folder.
      batch_size: examples a step.
      top_k: classes whose probability is told, the likeliest first; None for all.
      columns: of the inputs, which stand in the records too; None for none.

    Raises:
      UserError: names the row and column of what is wrong, or a model without a head.
    """
    check_head(saved.pretrained)
    if top_k is not None:
        check_top_k(saved.task, top_k)  # before anything is computed
    task = saved.task
    rows = task.data.read_new(*source_of(saved, inputs), "utf-8")
    asked = [columns] if isinstance(columns, str) else columns or ()
    own = beside.choose(rows.columns, asked)
    examples, _ = task.data.encode(rows, saved.processor, saved.data, iter)
    _, outputs = outputs_of(saved, examples, batch_size, Report(quiet=True), "rows")
    found = records(saved, outputs, examples, rows, top_k)
    return [
        beside.put({name: values[i] for name, values in own.items()}, record)
        for i, record in enumerate(found)
    ]


def records(
    saved: SavedModel, outputs: Any, examples: Any, rows: Rows, top_k: int | None
) -> Records:
    """What is told of each row, with probabilities at the model's temperature where it has one."""
    names, temperature = saved.pretrained.class_names, saved.card.get("temperature")
    return records_of(saved.task, outputs, examples, names, rows, top_k, temperature)


def scores(saved: SavedModel, data: InMemory | str | Path, batch_size: int) -> dict[str, float]:
    """The mean loss and the task's scores on labelled rows."""
    check_head(saved.pretrained)
    columns, reader = saved.data.columns, saved.task.data.reader
    if isinstance(data, str | Path):
        source: DataSource = dataclasses.replace(saved.data.source, path=str(data))
    else:
        source = {"train": from_memory(data, "rows")}
    tables = reader.load(source, columns)
    split = next(name for name in ("test", "validation", "train") if name in tables)
    rows = reader.rows(tables[split], columns, saved.pretrained.class_names)
    examples, _ = saved.task.data.encode(rows, saved.processor, saved.data, iter)
    means, outputs = outputs_of(saved, examples, batch_size, Report(quiet=True), split)
    return all_scores(saved.task, means, outputs, examples)


def embed(
    saved: SavedModel,
    inputs: InMemory | str | Path,
    pooling: How | None,
    batch_size: int,
    prompt: str | None = None,
) -> Any:
    """The states of the last layer, float32, pooled: [n d], or a list of n arrays [t d]."""
    source, columns = source_of(saved, inputs)
    if saved.task.head == "image":
        read_new, encode = saved.task.data.read_new, saved.task.data.encode
    else:  # whatever the task makes of texts, here each is one example
        read_new, encode = text_tables.read_new, text_tables.encode
    rows = read_new(source, columns, "utf-8")
    if rows.reasons is not None:
        raise UserError(f"There is nothing to embed in {next(filter(None, rows.reasons))}")
    if prompt is not None:
        text = prompt_of(saved, prompt)
        rows = rows._replace(inputs=[(f"{text}{first}", *rest) for first, *rest in rows.inputs])
    examples, _ = encode(rows, saved.processor, saved.data, iter)
    step = Compiled(_make_embed_step(saved, pooling))
    layout = choose(saved, examples.lengths, batch_size)
    _, states = _run(saved, step, examples, layout, lambda count: None, pooling is None)
    return states


def prompt_of(saved: SavedModel, name: str) -> str:
    """What a model was trained to have before a text.

    Args:
      saved: the model.
      name: `query` or `document`.

    Raises:
      UserError: another name, or a model that has none of it.
    """
    tokens = saved.data.tokens
    known = {"query": tokens.query_prompt, "document": tokens.document_prompt}
    if not known.get(name):
        told = ", ".join(known_name for known_name, text in known.items() if text) or "none"
        raise UserError(
            f"prompt is {name!r}, but {saved.pretrained.folder} has {told}: expected one of these,"
            " or None."
        )
    return known[name] or ""


def outputs_of(
    saved: SavedModel, examples: Any, batch_size: int, report: Report, name: str
) -> tuple[dict[str, float], Any]:
    """Metrics and outputs of all examples in their order, with a progress bar.

    Args:
      saved: the model.
      examples: n examples; without labels there are no metrics.
      batch_size: examples a step.
      report: shows the bar.
      name: of what is predicted, for the bar.

    Raises:
      UserError: a token that the model has no embedding for, or outputs that are not finite.
    """
    layout = choose(saved, examples.lengths, batch_size)
    with report.bar(f"predicting {name}", len(examples.lengths)) as update:
        return _checked(saved, examples, layout, update)


def outputs_in(saved: SavedModel, examples: Any, layout: Layout) -> Any:
    """As `outputs_of`, of examples without labels, in batches of a layout from `choose`."""
    _, outputs = _checked(saved, examples, layout, lambda count: None)
    return outputs


def choose(
    saved: SavedModel,
    lengths: Int[np.ndarray, " n"],
    batch_size: int,
    count: int | None = None,
) -> Layout:
    """The layout of batches of examples with these lengths: packed where they are texts.

    Args:
      saved: the model.
      lengths: tokens of each example.
      batch_size: examples of a batch.
      count: of all examples, where these are a sample.
    """
    kind = "bucketed" if saved.task.head == "image" else "packed"
    design = saved.pretrained.design
    return layouts_for(design, kind)(
        lengths,
        batch_size,
        use=Use(
            program_cost(design),
            batches=None if count is None else -(-count // batch_size),
        ),
    )


def _checked(
    saved: SavedModel, examples: Any, layout: Layout, update: Advance
) -> tuple[dict[str, float], Any]:
    """Metrics and outputs, which must be finite."""
    bad = UserError(
        f"{saved.pretrained.folder} gives outputs that are not finite: its weights are damaged,"
        " or too large for the compute dtype."
    )
    per_token = saved.task.output.per_token
    try:
        means, outputs = _run(saved, saved.step, examples, layout, update, per_token)
    except NonFiniteError:
        raise bad from None
    if outputs is not None and not all(np.isfinite(part).all() for part in outputs):
        raise bad
    return means, outputs


_UNSET = ColumnSettings().text_columns


def own_columns(task: Task, card: Mapping[str, Any]) -> Sequence[str]:
    """The columns that a model was trained on, as its jaxtune.json says; () where it does not."""
    if task.head == EMBEDDING:  # whose texts are embedded each by itself
        return ()
    if task.head == "image":
        return [card["image_column"]] if card else ()
    texts = tuple(card.get("text_columns", ()))
    if task.head == CHOICE:
        return () if texts == _UNSET else texts
    if task.name == RERANKING.name:  # the others of which say what was relevant
        return texts if len(texts) == 2 else ()
    return texts


def source_of(
    saved: SavedModel, inputs: InMemory | str | Path
) -> tuple[Path | Table, Sequence[str]]:
    """The rows to predict on, a path or a table in memory; and the columns that are read.

    Raises:
      UserError: no such rows, or a row of more or fewer texts than the model reads.
    """
    own = own_columns(saved.task, saved.card)
    if isinstance(inputs, str | Path):
        return Path(inputs).expanduser(), own
    if isinstance(inputs, Mapping) or hasattr(inputs, "features"):
        return from_memory(inputs, "rows"), own
    values = list(inputs)
    if values and all(isinstance(value, Mapping) for value in values):
        return from_memory(values, "rows"), own
    is_tuple = [isinstance(value, tuple) for value in values]
    if not any(is_tuple):
        name = own[0] if own else "image" if saved.task.head == "image" else "text"
        return from_memory({name: values}, "rows"), own
    if saved.task.head == CHOICE:
        own = choice_tables.PLAIN
    names = own or ("text", "text_pair")[: len(values[is_tuple.index(True)])]
    for number, value in enumerate(values, start=1):
        is_one = isinstance(value, tuple)
        if not is_one or len(value) != len(names):
            found = f"a tuple of {len(value)}" if is_one else f"a {type(value).__name__}"
            raise UserError(
                f"data[rows] row {number}: found {found}, but expected a tuple of"
                f" {', '.join(names)}, as the model reads."
            )
    columns = dict(zip(names, map(list, zip(*values, strict=True)), strict=True))
    return from_memory(columns, "rows"), names


def _run(
    saved: SavedModel, step: Any, examples: Any, layout: Layout, update: Advance, per_token: bool
) -> tuple[dict[str, float], Any]:
    """A step over all examples."""
    pretrained = saved.pretrained
    saved.task.data.inputs.check(examples, pretrained.config, pretrained.folder)
    return predict_all(
        lambda batch: step(pretrained.params, batch),
        examples,
        layout,
        update,
        per_token=per_token,
    )


def _make_embed_step(saved: SavedModel, pooling: How | None) -> Any:
    """(parameters, batch) -> ({}, states of the last layer)."""
    module: Any = saved.pretrained.module
    if pooling == "own":
        if saved.task.head in POOLING_HEADS:
            apply_fn = saved.pretrained.apply_fn  # with what a strategy has added

            def own(params: Params, batch: Batch) -> tuple[dict[str, Any], Array]:
                batch = batch | {"group_ids": batch["example_ids"]}  # for the vector of each
                return {}, apply_fn(params, batch, key=None, train=False)

            return own
        pooling = "mean"

    def step(params: Params, batch: Batch) -> tuple[dict[str, Any], Array]:
        x = module.apply({"params": params}, batch, method="last_states")
        if "pixel_values" in batch:  # all tokens, or places, of an image are its own
            x = x.reshape(x.shape[0], -1, x.shape[-1])  # [b ... d] -> [b t d]
            batch = batch | {"attention_mask": jnp.ones(x.shape[:2], jnp.int32)}
        if pooling == "mean":
            return {}, mean_tokens(x, batch)
        if pooling is not None:
            x = pick(x, places_of(batch, pooling, x.shape[0]))  # [b n d]
            x = x if "segment_ids" in batch else x[:, 0]
        return {}, x.astype(jnp.float32)

    return step
