"""Rows of texts to arrays of tokens, some rows at a time: framed by special tokens, and cut."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxtune.data.ragged import places_of, starts_of
from jaxtune.data.text.lexicon import Found, open_lexicon
from jaxtune.data.text.tokenizer import Cut, FileTokenizer

CHUNK = 2000  # rows tokenized at a time, so that progress can be shown
_COMPARED = 32  # rows by which a lexicon has to prove itself

_Row = tuple[str, ...]

LookUp = Callable[[Sequence[str]], Found]
"""Texts -> their tokens."""


class Part(NamedTuple):
    """n rows of T tokens in all.

    Attributes:
      input_ids: of all rows, one after the other, in the tokenizer's `id_dtype`.
      token_type_ids: of the same; None where all are 0.
      lengths: tokens of each row.
      num_cut: rows that were longer.
    """

    input_ids: Int[np.ndarray, " T"]
    token_type_ids: UInt8[np.ndarray, " T"] | None
    lengths: Int[np.ndarray, " n"]
    num_cut: int


class Frame(NamedTuple):
    """What stands before, between and after the texts of a row, and the types of all that.

    Attributes:
      ids: special tokens: of a single text in two groups, of a pair in three.
      types: as many, of these groups.
      text_types: of each text.
    """

    ids: tuple[tuple[int, ...], ...]
    types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]


def parts(
    tokenizer: FileTokenizer,
    rows: Sequence[_Row],
    max_length: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Iterator[Part]:
    """The tokens of rows, as `tokens.tokenize` says, in their order.

    Args:
      tokenizer: of a model's folder.
      rows: one or two texts each.
      max_length: tokens, special ones included.
      track: wraps the iteration over chunks, to show progress.
    """
    ways = look_ups(tokenizer)
    # A lexicon that has to prove itself on all rows saves nothing.
    look_up, frame = None if len(rows) <= _COMPARED else next(ways), None
    for start in track(range(0, len(rows), CHUNK)):
        chunk = [rows[i] for i in range(start, min(start + CHUNK, len(rows)))]
        some = chunk[:: -(-len(chunk) // _COMPARED)]
        if look_up is not None and frame is None:
            frame = next(filter(None, (find_frame(tokenizer, row) for row in some)), None)
            if frame is not None:
                expected = _by_library(tokenizer, some, max_length)
                while look_up is not None:
                    found = _by_texts(tokenizer, some, max_length, look_up, frame)
                    if _is_same(found, expected):
                        break
                    look_up = next(ways)
        if look_up is None or frame is None:
            yield _by_library(tokenizer, chunk, max_length)
        else:
            yield _by_texts(tokenizer, chunk, max_length, look_up, frame)


def _is_same(one: Part, other: Part) -> bool:
    """Whether two parts hold the same."""
    pairs = zip(tuple(one), tuple(other), strict=True)
    return all(
        np.array_equal(np.asarray(mine), np.asarray(theirs)) for mine, theirs in pairs
    )  # of None and None too


def look_ups(tokenizer: FileTokenizer) -> Iterator[LookUp | None]:
    """Ways to the tokens of texts alone, the fastest first; None after the last."""

    def whole(texts: Sequence[str]) -> Found:
        return whole_texts(tokenizer, texts)

    lexicon = open_lexicon(tokenizer)
    if lexicon is not None:
        yield lexicon.look_up
    yield whole
    yield None


def whole_texts(tokenizer: FileTokenizer, texts: Sequence[str]) -> Found:
    """The tokens of each text by the library, without special ones around them."""
    encoded = tokenizer.encode(texts, special=False)
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids = itertools.chain.from_iterable(part.ids for part in encoded)
    flat = np.fromiter(ids, np.int32, int(lengths.sum()))
    return Found(flat, lengths, np.zeros(len(texts), bool))


def _by_library(tokenizer: FileTokenizer, rows: Sequence[_Row], max_length: int) -> Part:
    """Each row tokenized, cut and framed by the library."""
    texts = [row[0] if len(row) == 1 else row for row in rows]
    encoded = tokenizer.encode(texts, cut=Cut(max_length))
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids, types = (
        np.fromiter(itertools.chain.from_iterable(lists), dtype, int(lengths.sum()))
        for lists, dtype in (
            ((part.ids for part in encoded), tokenizer.id_dtype),
            ((part.type_ids for part in encoded), np.uint8),
        )
    )
    full = np.flatnonzero(lengths == max_length)
    num_cut = sum(bool(encoded[i].overflowing) for i in full.tolist())
    return Part(ids, types if types.any() else None, lengths, num_cut)


def _by_texts(
    tokenizer: FileTokenizer, rows: Sequence[_Row], max_length: int, look_up: LookUp, frame: Frame
) -> Part:
    """The tokens of each text, cut and framed."""
    room = max_length - sum(map(len, frame.ids))
    if room < 0:
        return _by_library(tokenizer, rows, max_length)  # which says what it makes of that
    sides = [complete(tokenizer, texts, look_up(texts)) for texts in zip(*rows, strict=True)]
    kept = _cut([side.lengths for side in sides], room)
    num_cut = int((np.sum([side.lengths for side in sides], axis=0) > room).sum())
    left = tokenizer.truncation_side == "left"
    sides = [_clipped(side, lengths, left) for side, lengths in zip(sides, kept, strict=True)]
    ids, types, lengths = lay(sides, frame, tokenizer.id_dtype)
    return Part(ids, types if types.any() else None, lengths, num_cut)


def complete(tokenizer: FileTokenizer, texts: Sequence[str], found: Found) -> Found:
    """The tokens of all texts, the odd ones too."""
    odd = np.flatnonzero(found.odd)
    if not len(odd):
        return found
    more = whole_texts(tokenizer, [texts[i] for i in odd.tolist()])
    lengths = found.lengths.copy()
    lengths[odd] = more.lengths
    ids, starts = np.empty(int(lengths.sum()), np.int32), starts_of(lengths)
    ids[places_of(starts[odd], more.lengths)] = more.ids
    ids[places_of(starts, found.lengths)] = found.ids
    return Found(ids, lengths, np.zeros_like(found.odd))


def _cut(lengths: Sequence[Int[np.ndarray, " n"]], room: int) -> list[Int[np.ndarray, " n"]]:
    """How many tokens of each text there is room for; of a pair the longer one is cut first."""
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    short, long = np.minimum(first, second), np.maximum(first, second)
    both = 2 * short > room  # are cut, to the same length or one less
    fewer = np.where(both, room // 2, short)
    more = np.where(both, room - room // 2, room - short)
    fits, is_first = short + long <= room, first <= second
    return [
        np.where(fits, first, np.where(is_first, fewer, more)),
        np.where(fits, second, np.where(is_first, more, fewer)),
    ]


def _clipped(side: Found, lengths: Int[np.ndarray, " n"], left: bool) -> Found:
    """The first or last so many tokens of each text."""
    if np.array_equal(lengths, side.lengths):
        return side
    starts = starts_of(side.lengths) + (side.lengths - lengths if left else 0)
    return side._replace(ids=side.ids[places_of(starts, lengths)], lengths=lengths)


def lay(
    sides: Sequence[Found], frame: Frame, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, types and lengths of rows: their texts with special tokens around them."""
    lengths = np.sum([side.lengths for side in sides], axis=0) + sum(map(len, frame.ids))
    total = int(lengths.sum())
    ids, types = np.zeros(total, dtype), np.zeros(total, np.uint8)
    at = starts_of(lengths)
    for group, (special, special_types) in enumerate(zip(frame.ids, frame.types, strict=True)):
        for token, kind in zip(special, special_types, strict=True):
            ids[at], types[at] = token, kind
            at = at + 1
        if group < len(sides):
            sizes = sides[group].lengths
            places = places_of(at, sizes)
            ids[places], types[places] = sides[group].ids, frame.text_types[group]
            at = at + sizes
    return ids, types, lengths


def find_frame(tokenizer: FileTokenizer, row: _Row) -> Frame | None:
    """What a tokenizer puts around rows like one; None where that cannot be seen of it."""
    (encoded,) = tokenizer.encode([row[0] if len(row) == 1 else row])
    sides: list[Any] = encoded.sequence_ids  # None of special tokens
    order = [side for side, _ in itertools.groupby(sides) if side is not None]
    if order != [*range(len(row))]:
        return None
    ends = [0, *(sides.index(side) for side in order), len(sides)]
    ids: list[tuple[int, ...]] = []
    types: list[tuple[int, ...]] = []
    text_types = tuple(encoded.type_ids[sides.index(side)] for side in order)
    for group in range(len(row) + 1):
        first = 0 if group == 0 else ends[group] + sides.count(group - 1)
        last = ends[group + 1]
        ids.append(tuple(encoded.ids[first:last]))
        types.append(tuple(encoded.type_ids[first:last]))
    return Frame(tuple(ids), tuple(types), text_types)
