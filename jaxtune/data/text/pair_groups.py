"""Groups of pairs of texts: a prompt with each of its choices, a query with its passages."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxtune.data.batching.groups import groups_of
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import text_tables
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.grouped import GroupedExamples
from jaxtune.data.text.text_tables import Track
from jaxtune.data.text.token_cache import tokenize_once
from jaxtune.data.text.tokens import tokenize
from jaxtune.settings.data import DataSettings

Pairs = tuple[tuple[str, str], ...]
"""The pairs of a group."""


def encode(
    rows: Rows,
    tokenizer: Any,
    settings: DataSettings,
    track: Track = iter,
    tokenize: Any = tokenize,
) -> tuple[GroupedExamples | Examples, list[str]]:
    """Tokenizes each pair as a pair.

    Args:
      rows: inputs are `Pairs`, and labels a float32 array for each group, or None; or inputs are
        single pairs to predict on.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length` and `token_dropout` are read.
      track: shows progress.
      tokenize: as `tokens.tokenize`.

    Returns:
      (groups of pairs, whose `info` is the second text of each; or single pairs, where the rows are
      that; notes on how many were cut).
    """
    own = partial(text_tables.encode, tokenizer=tokenizer, settings=settings, track=track)
    if _are_single(rows.inputs):
        return own(rows, tokenize=tokenize)
    pairs = [pair for group in rows.inputs for pair in group]
    labels = None if rows.labels is None else np.concatenate(rows.labels)
    examples, notes = own(Rows(pairs, labels), tokenize=tokenize)
    sizes = np.array([len(group) for group in rows.inputs], np.int64)
    named = examples._replace(info=[second for _, second in pairs])
    return GroupedExamples(named, groups_of(sizes)), notes


def once(folder: Path) -> dict[str, Any]:
    """What of a task's data tokenizes no text a second time; the tokens are kept in `folder`."""
    return {"encode": partial(encode, tokenize=partial(tokenize_once, folder))}


def _are_single(inputs: Sequence[Any]) -> bool:
    return bool(len(inputs)) and isinstance(inputs[0][0], str)
