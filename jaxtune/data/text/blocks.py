"""Texts to blocks of tokens, for language models: how they are read, joined and cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxtune.core.errors import UserError
from jaxtune.data.sources.new_rows import open_new, source_columns
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table, bad_row, column
from jaxtune.data.text import tokens
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.new_values import new_values
from jaxtune.data.text.text_tables import Track, load_tables, only_column
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.settings.data import ColumnSettings

_CHUNK = 2000  # texts tokenized at a time, so that progress can be shown

Tokens = Int32[np.ndarray, " t"]


class Frame(NamedTuple):
    """The special tokens around each block, as the tokenizer puts them around a single text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


NO_FRAME = Frame()


def read_texts(table: Table, columns: Sequence[str]) -> list[str]:
    """The text of each row, unchanged; one of white space alone is kept too.

    Raises:
      UserError: not one column, no such column, or a value that is not a string.
    """
    if len(columns) != 1:
        raise UserError(
            f"config.data.text_columns: found {len(columns)} columns ({', '.join(columns)}), but a"
            " language model reads one text a row. Name one column."
        )
    texts = column(table, columns[0])
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            found = "nothing" if text is None else repr(text)[:80]
            raise bad_row(
                table,
                i,
                f"found {found} in the column {columns[0]!r}, but expected a"
                " text. Correct or remove the row, or check config.data.text_columns.",
            )
    return texts


def _rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    """The rows that are not blank; their labels, which are their own tokens, come later."""
    del names
    texts = [text for text in read_texts(table, columns.text_columns) if text.strip()]
    if not texts:
        raise UserError(
            f"{table.source}: all rows of the column {columns.text_columns[0]!r} are blank, but"
            " expected at least one text. Check config.data.text_columns."
        )
    return Rows(texts, np.zeros(len(texts), np.int32))


TEXTS = Reader(load_tables, lambda *_: True, lambda *_: (), _rows)
"""Texts alone, from one column of a table or the lines of a file; blank ones are skipped."""


def read_new(source: Path | Table, columns: Sequence[str], encoding: str) -> Rows:
    """One text for each row of a file, to predict on; one that is none has a reason.

    Args:
      source: a file that `data.sources.files.read_file` reads.
      columns: the text column of a table; () takes `text`, or the only column.
      encoding: of the file.

    Raises:
      UserError: names the file, the line and the column of what is wrong.
    """
    table = open_new(source, encoding, "texts", columns)
    columns = tuple(columns) or (only_column(table, "NAME which holds the text"),)
    values, reasons = new_values(table, columns, "")
    texts = read_texts(table._replace(columns=values), columns)
    return Rows(texts, None, reasons=reasons, columns=source_columns(table))


def tokenize_texts(
    tokenizer: FileTokenizer, texts: Sequence[str], track: Track = iter
) -> list[Tokens]:
    """The tokens of each text, of any length, without special ones around it."""
    found: list[Tokens] = []
    for start in track(range(0, len(texts), _CHUNK)):
        encoded = tokenizer.encode(texts[start : start + _CHUNK], special=False)
        found += [np.array(tokens.ids, np.int32) for tokens in encoded]
    return found


def separator(tokenizer: FileTokenizer) -> int:
    """The token between texts: the one that separates them, or else the one that ends them.

    Raises:
      UserError: the tokenizer has neither.
    """
    for token in (tokenizer.sep_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise UserError(
        f"{tokenizer.place}: the tokenizer has neither a sep_token nor an eos_token to stand"
        " between texts. Set one in its tokenizer_config.json."
    )


def find_frame(tokenizer: FileTokenizer, texts: Sequence[str], tokens: Sequence[Tokens]) -> Frame:
    """What the tokenizer puts around a single text; nothing where no text has tokens.

    Args:
      tokenizer: asked how it does it with the first text that has tokens.
      texts: n of them.
      tokens: of each text, from `tokenize_texts`.
    """
    sample = next((text for text, ids in zip(texts, tokens, strict=True) if len(ids)), None)
    if sample is None:
        return NO_FRAME
    (encoded,) = tokenizer.encode([sample])
    ids, mask = encoded.ids, encoded.special_tokens_mask
    first, last = mask.index(0), len(mask) - mask[::-1].index(0)
    return Frame(tuple(ids[:first]), tuple(ids[last:]))


def room(frame: Frame, max_length: int) -> int:
    """Tokens of a block of `max_length` that are not of the frame.

    Raises:
      UserError: none.
    """
    special = len(frame.before) + len(frame.after)
    if special >= max_length:
        raise UserError(
            f"config.data.max_length is {max_length}, but the tokenizer puts {special} special"
            f" tokens around each block: expected at least {special + 1}."
        )
    return max_length - special


def join(texts: Sequence[Tokens], between: int) -> Tokens:
    """All texts as one, with a token between each two."""
    parts = [part for ids in texts for part in (ids, np.array([between], np.int32))]
    return np.concatenate(parts[:-1])


def cut(tokens: Tokens, size: int, *, overlap: int = 0, least: int = 1) -> list[Tokens]:
    """Cuts tokens into blocks; every token is in one of them.

    Args:
      tokens: of one text, or of many joined; none at all make one empty block.
      size: tokens of each block; the last one may have fewer.
      overlap: tokens of a block that the next one begins with, fewer than `size`.
      least: a last block of fewer tokens takes some of the block before along, where there is one.
    """
    starts = list(range(0, max(len(tokens) - overlap, 1), size - overlap))
    starts[-1] = max(0, min(starts[-1], len(tokens) - least))
    stops = [start + size for start in starts]
    return [tokens[start:stop] for start, stop in zip(starts, stops, strict=True)]


def make_examples(
    parts: Sequence[Sequence[Tokens]], pad_token_id: int, frame: Frame = NO_FRAME
) -> Examples:
    """Blocks as examples without labels, each in its frame.

    Args:
      parts: the blocks of each text.
      pad_token_id: fills rows up; a block without any token is one of these.
      frame: put around each block.

    Returns:
      Examples with the index of its text as the `info` of each block.
    """
    before, after = (np.array(ids, np.int32) for ids in frame)
    padding = np.array([pad_token_id], np.int32)
    framed = [np.concatenate([before, ids, after]) for blocks in parts for ids in blocks]
    framed = [ids if len(ids) else padding for ids in framed]
    owners = [i for i, blocks in enumerate(parts) for _ in blocks]
    return Examples(tokens.join(framed, None, pad_token_id), info=owners)


def describe(num_texts: int, examples: Examples, max_length: int) -> str:
    """How many blocks the texts make, for a person: these, not the texts, fill the batches."""
    num_blocks = len(examples.lengths)
    return f"{num_texts} texts make {num_blocks} blocks of up to {max_length} tokens"
