"""Texts that a saved causal language model writes after prompts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.data.sources.memory import InMemory
from jaxtune.data.sources.new_rows import open_new
from jaxtune.data.sources.table import Table, column, where
from jaxtune.data.text import blocks, labels
from jaxtune.data.text.text_tables import only_column
from jaxtune.export.adapter_folder import check_head
from jaxtune.models.continuation import Rule, write
from jaxtune.models.sampling import Sampling, check_sampling, choose_draw
from jaxtune.run.console import Report
from jaxtune.run.predictions import own_columns, source_of
from jaxtune.run.saved import SavedModel
from jaxtune.tasks.task import Task

_FEWEST_SLOTS = 16  # of prompts, and of texts; more are the powers of two

_write = jax.jit(write, static_argnames=("apply_fn", "draw", "slots"))


class Plan(NamedTuple):
    """What is written after prompts.

    Attributes:
      max_new_tokens: the most of each text.
      sampling: how each token is chosen.
      seed: of what is drawn; the text of a row follows from it, the prompt and the row's number.
      batch_size: prompts that are gone on with at once.
    """

    max_new_tokens: int = 64
    sampling: Sampling = Sampling()
    seed: int = 0
    batch_size: int = 16


class Prompts(NamedTuple):
    """Prompts in their order.

    Attributes:
      texts: n of them.
      ids: the tokens of each, at least one.
      notes: for a person.
    """

    texts: Sequence[str]
    ids: Sequence[Int32[np.ndarray, " t"]]
    notes: list[str]


def check_causal(folder: str | Path, task: Task) -> None:
    """Refuses a model that does not go on with texts.

    Raises:
      UserError: its task is another one.
    """
    if task.name != "causal_lm":
        raise UserError(
            f"{folder} is a model for {task.name}, but only one for causal_lm goes on with a text."
            " Give a causal language model, such as GPT-2 trained with config.task='causal_lm'; for"
            " what this one gives there is predict."
        )


def check_plan(plan: Plan) -> None:
    """Refuses what cannot be followed.

    Raises:
      UserError: a value out of its range.
    """
    check_sampling(plan.sampling)
    for name in ("max_new_tokens", "batch_size"):
        if getattr(plan, name) < 1:
            raise UserError(f"{name} is {getattr(plan, name)}: expected at least 1.")
    if not 0 <= plan.seed < 2**32:
        raise UserError(f"seed is {plan.seed}: expected 0 to {2**32 - 1}.")


def read_prompts(source: Path | Table, columns: Sequence[str], encoding: str = "utf-8") -> Table:
    """A table whose only column holds a prompt for each row; a missing one is an empty text.

    Args:
      source: a file, or rows in memory.
      columns: the column of the prompts; () takes `text`, or the only one.
      encoding: of a file.

    Raises:
      UserError: names the file, the line and the column of what is wrong.
    """
    table = open_new(source, encoding, "prompts", columns)
    names = tuple(columns) or (only_column(table, "NAME which holds the prompts"),)
    columns_of = {
        name: [value if isinstance(value, str) or not labels.is_blank(value) else "" for value in x]
        for name, x in ((name, column(table, name)) for name in names)
    }
    table = table._replace(columns=columns_of)
    return table._replace(columns={"prompt": blocks.read_texts(table, names)})


def encode_prompts(saved: SavedModel, table: Table) -> Prompts:
    """The tokens of prompts, as they are; an empty one is the token that stands between texts.

    Args:
      saved: the model.
      table: from `read_prompts`.

    Raises:
      UserError: a prompt that leaves no position for a token, or a token that the model has not.
    """
    texts, tokenizer, config = table.columns["prompt"], saved.processor, saved.pretrained.config
    ids, notes = blocks.tokenize_texts(tokenizer, texts), []
    empty = sum(not len(tokens) for tokens in ids)
    if empty:
        start = blocks.separator(tokenizer)
        ids = [tokens if len(tokens) else np.array([start], np.int32) for tokens in ids]
        token = tokenizer.convert_ids_to_tokens([start])[0]
        notes.append(
            f"{empty} of {len(ids)} prompts are empty: there the model begins a text, after {token}"
        )
    for i, tokens in enumerate(ids):
        if len(tokens) >= config.max_length:
            raise UserError(
                f"{where(table, i)}: the prompt has {len(tokens)} tokens, but"
                f" {saved.pretrained.folder} has {config.max_length} positions for it and its text:"
                f" expected at most {config.max_length - 1}. Shorten the prompt."
            )
    examples = blocks.make_examples([[tokens] for tokens in ids], tokenizer.pad_token_id)
    saved.task.data.inputs.check(examples, config, saved.pretrained.folder)
    return Prompts(texts, ids, notes)


def generate(
    saved: SavedModel, prompts: Prompts, plan: Plan, report: Report
) -> tuple[list[dict[str, str]], list[str]]:
    """Goes on with each prompt until its text ends.

    Args:
      saved: a causal language model.
      prompts: from `encode_prompts`.
      plan: checked.
      report: shows progress.

    Returns:
      (`prompt` and `text` for each row, notes for a person).

    Raises:
      UserError: logits that are not finite.
    """
    folder, limit = saved.pretrained.folder, saved.pretrained.config.max_length
    tokenizer, texts, num_cut = saved.processor, [""] * len(prompts.ids), 0
    ends = {tokenizer.sep_token_id, tokenizer.eos_token_id} - {None}
    draw, numbers = choose_draw(plan.sampling)
    rule = Rule(jax.random.key(plan.seed), numbers, jnp.asarray(sorted(ends) or [-1], jnp.int32))
    with report.bar("generating", len(texts)) as update:
        for rows, slots, batch in _batches(prompts.ids, plan, limit):
            apply_fn, params = saved.pretrained.apply_fn, saved.pretrained.params
            found = jax.device_get(_write(apply_fn, draw, slots, params, batch, rule))
            if not found.is_finite.all():
                raise UserError(
                    f"{folder} gives outputs that are not finite: its weights are damaged, or too"
                    " large for the compute dtype."
                )
            for row, ids, count in zip(rows, found.tokens, found.counts, strict=False):
                texts[row] = tokenizer.backend_tokenizer.decode(ids[:count].tolist())
                num_cut += count < plan.max_new_tokens and len(prompts.ids[row]) + count == limit
            update(len(rows))
    notes = [*prompts.notes]
    if num_cut:
        notes.append(
            f"{num_cut} of {len(texts)} texts stop where prompt and text have the {limit} tokens"
            " that the model has positions for"
        )
    records = zip(prompts.texts, texts, strict=True)
    return [{"prompt": prompt, "text": text} for prompt, text in records], notes


def generate_in_memory(
    saved: SavedModel, inputs: InMemory | str | Path, plan: Plan
) -> tuple[list[dict[str, str]], list[str]]:
    """As `generate`, of prompts that are in memory, or in a file.

    Raises:
      UserError: as the functions above.
    """
    check_causal(saved.pretrained.folder, saved.task)
    check_head(saved.pretrained)
    check_plan(plan)
    if isinstance(inputs, str) and not Path(inputs).expanduser().exists():
        raise UserError(
            f"there is no file {inputs!r}. A string is the path of a file of prompts: write"
            " [prompt] for one prompt."
        )
    columns = own_columns(saved.task, saved.card)
    table = read_prompts(source_of(saved, inputs)[0], columns)
    return generate(saved, encode_prompts(saved, table), plan, Report(quiet=True))


def _batches(
    ids: Sequence[Int32[np.ndarray, " t"]], plan: Plan, limit: int
) -> Iterator[tuple[list[int], int, Batch]]:
    """Rows, how many tokens each has room for, and the batch; in few shapes.

    All batches have as many rows; those that only fill it are to write nothing.
    """
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    size = min(plan.batch_size, _power(len(ids), 1))
    room = _power(plan.max_new_tokens, _FEWEST_SLOTS)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        width = min(_power(max(len(ids[i]) for i in rows), _FEWEST_SLOTS), limit)
        batch: dict[str, Any] = {
            "input_ids": np.zeros((size, width), np.int32),
            "attention_mask": np.zeros((size, width), np.int32),
            "limits": np.zeros(size, np.int32),
            "rows": np.zeros(size, np.int32),
        }
        batch["attention_mask"][:, 0] = 1
        for place, row in enumerate(rows):
            length = len(ids[row])
            batch["input_ids"][place, :length] = ids[row]
            batch["attention_mask"][place, :length] = 1
            batch["limits"][place] = min(plan.max_new_tokens, limit - length)
            batch["rows"][place] = row
        yield rows, min(width + room, limit), batch


def _power(number: int, least: int) -> int:
    """The first power of two that is no smaller."""
    return max(least, 1 << (number - 1).bit_length())
