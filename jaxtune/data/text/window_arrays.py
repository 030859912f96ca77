"""Questions and contexts to the tokens of windows, as flat arrays: a context is tokenized once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from jaxtune.data.ragged import places_of, starts_of
from jaxtune.data.text.lexicon import Found
from jaxtune.data.text.squad import Question
from jaxtune.data.text.token_parts import (
    Frame,
    LookUp,
    complete,
    find_frame,
    lay,
    look_ups,
    whole_texts,
)
from jaxtune.data.text.tokenizer import Cut, FileTokenizer

CHUNK = 2000  # questions tokenized at a time, so that progress can be shown
_COMPARED = 32  # questions by which the way has to prove itself


class Limits(NamedTuple):
    """How long things may be, in tokens.

    Attributes:
      window: of a window, special ones included.
      stride: that two windows on one context share.
      question: of a question.
    """

    window: int
    stride: int
    question: int


class WindowArrays(NamedTuple):
    """w windows of T tokens in all, on c contexts of C tokens in all.

    Attributes:
      input_ids: of all windows, one after the other.
      token_type_ids: of the same.
      lengths: tokens of each window.
      rows: which question each belongs to.
      firsts: the position of the first token of its context.
      contexts: which context it is on.
      starts: the first token of this context that it has.
      counts: how many of these it has.
      context_sizes: tokens of each context, without special ones.
      spans: where each of these begins and ends, in characters, one after the other.
    """

    input_ids: Int[np.ndarray, " T"]
    token_type_ids: UInt8[np.ndarray, " T"]
    lengths: Int32[np.ndarray, " w"]
    rows: Int32[np.ndarray, " w"]
    firsts: Int32[np.ndarray, " w"]
    contexts: Int32[np.ndarray, " w"]
    starts: Int32[np.ndarray, " w"]
    counts: Int32[np.ndarray, " w"]
    context_sizes: Int32[np.ndarray, " c"]
    spans: Int32[np.ndarray, " 2*C"]


Way = Callable[[Sequence[Question]], WindowArrays]
"""Questions -> their windows."""


def parts(
    tokenizer: FileTokenizer,
    questions: Sequence[Question],
    limits: Limits,
    track: Callable[[Iterable[int]], Iterable[int]],
) -> Iterator[tuple[WindowArrays, int]]:
    """The windows of some questions at a time, and how many of these were cut.

    Args:
      tokenizer: of a model's folder.
      questions: n of them.
      limits: of lengths.
      track: wraps the iteration over chunks, to show progress.
    """
    known = next(look_ups(tokenizer)) or (lambda texts: whole_texts(tokenizer, texts))
    way: Way | None = None
    num_rows = num_contexts = 0
    for start in track(range(0, len(questions), CHUNK)):
        chunk = questions[start : start + CHUNK]
        cut, count = _cut_questions(tokenizer, chunk, limits.question, known)
        way = _choose_way(tokenizer, cut, limits) if way is None else way
        found = way(cut)
        yield (
            found._replace(rows=found.rows + num_rows, contexts=found.contexts + num_contexts),
            count,
        )
        num_rows += len(chunk)
        num_contexts += len(found.context_sizes)


def spans_of(arrays: WindowArrays) -> tuple[Int[np.ndarray, " w"], Int32[np.ndarray, "C 2"]]:
    """Where the tokens of each window begin among those of all contexts, and the latter's spans."""
    sizes = arrays.context_sizes.astype(np.int64)
    begins = starts_of(sizes)[arrays.contexts] + arrays.starts
    return begins, arrays.spans.reshape(-1, 2)


def _cut_questions(
    tokenizer: FileTokenizer, questions: Sequence[Question], limit: int, look_up: LookUp
) -> tuple[list[Question], int]:
    """The questions cut to so many tokens, and how many were cut."""
    # White space before a question would be many tokens; some of SQuAD's have that.
    texts = [question.question.strip() for question in questions]
    lengths = complete(tokenizer, texts, look_up(texts)).lengths
    long = np.flatnonzero(lengths > limit).tolist()
    for i, encoded in zip(
        long, tokenizer.encode([texts[i] for i in long], special=False), strict=True
    ):
        texts[i] = texts[i][: encoded.offsets[limit][0]].rstrip()
    pairs = zip(questions, texts, strict=True)
    return [question._replace(question=text) for question, text in pairs], len(long)


def _choose_way(tokenizer: FileTokenizer, questions: Sequence[Question], limits: Limits) -> Way:
    """The fastest way that gives what the library gives for some questions."""
    some = questions[:: -(-len(questions) // _COMPARED)]

    def library(questions: Sequence[Question]) -> WindowArrays:
        return _by_library(tokenizer, questions, limits)

    frames = (find_frame(tokenizer, (part.question, part.context)) for part in some)
    frame = next(filter(None, frames), None)
    if frame is None:
        return library
    expected = library(some)
    for look_up in look_ups(tokenizer):
        if look_up is None:
            break

        def way(questions: Sequence[Question], look_up: LookUp = look_up) -> WindowArrays:
            return _by_contexts(tokenizer, questions, limits, look_up, frame)

        if _is_same(way(some), expected):
            return way
    return library


def _is_same(one: WindowArrays, other: WindowArrays) -> bool:
    """Whether two ways gave the same windows, however they keep the contexts."""
    same = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("input_ids", "token_type_ids", "lengths", "rows", "firsts", "counts")
    )
    if not same:
        return False
    mine, theirs = (
        spans[places_of(begins, part.counts)]
        for part, (begins, spans) in ((part, spans_of(part)) for part in (one, other))
    )
    # The library leaves a byte-level token its space where it is the first of a later window, which
    # neither labels nor answers, without white space around them, can tell.
    slack = np.zeros((len(mine), 1), np.int32)
    slack[starts_of(one.counts)[one.counts > 0]] = 1
    return len(mine) == len(theirs) and bool((np.abs(mine - theirs) <= slack).all())


def _by_library(
    tokenizer: FileTokenizer, questions: Sequence[Question], limits: Limits
) -> WindowArrays:
    """Each question with its context by itself; each window is on a context of its own."""
    cut = Cut(limits.window, "only_second", limits.stride)
    encoded = tokenizer.encode([(part.question, part.context) for part in questions], cut=cut)
    pieces = [(i, part) for i, whole in enumerate(encoded) for part in (whole, *whole.overflowing)]
    sides: list[Any] = [part.sequence_ids for _, part in pieces]
    counts = np.array([side.count(1) for side in sides], np.int32)
    firsts = [side.index(1) if 1 in side else len(side) for side in sides]
    spans = [
        part.offsets[first : first + count]
        for (_, part), first, count in zip(pieces, firsts, counts.tolist(), strict=True)
    ]
    return WindowArrays(
        input_ids=_joined([part.ids for _, part in pieces], tokenizer.id_dtype),
        token_type_ids=_joined([part.type_ids for _, part in pieces], np.dtype(np.uint8)),
        lengths=np.array([len(part) for _, part in pieces], np.int32),
        rows=np.array([i for i, _ in pieces], np.int32),
        firsts=np.array(firsts, np.int32),
        contexts=np.arange(len(pieces), dtype=np.int32),
        starts=np.zeros(len(pieces), np.int32),
        counts=counts,
        context_sizes=counts,
        spans=_joined([np.array(part, np.int32).ravel() for part in spans], np.dtype(np.int32)),
    )


def _by_contexts(
    tokenizer: FileTokenizer,
    questions: Sequence[Question],
    limits: Limits,
    look_up: LookUp,
    frame: Frame,
) -> WindowArrays:
    """Each context tokenized once, however many questions are on it."""
    numbers: dict[str, int] = {}
    own = np.array([numbers.setdefault(q.context, len(numbers)) for q in questions], np.int32)
    encoded = tokenizer.encode([*numbers], special=False)
    sizes = np.array([len(part) for part in encoded], np.int32)
    tokens = _joined([part.ids for part in encoded], np.dtype(np.int32))
    spans = [np.array(part.offsets, np.int32).ravel() for part in encoded]
    texts = [question.question for question in questions]
    asked = complete(tokenizer, texts, look_up(texts))
    room = limits.window - sum(map(len, frame.ids)) - asked.lengths
    left = tokenizer.truncation_side == "left"
    rows, starts, counts = _slide(sizes[own], room, room - limits.stride, left)
    contexts = own[rows]
    again = places_of(starts_of(asked.lengths)[rows], asked.lengths[rows])
    question = Found(asked.ids[again], asked.lengths[rows], np.zeros(len(rows), bool))
    places = places_of(starts_of(sizes)[contexts] + starts, counts)
    context = Found(tokens[places], counts, question.odd)
    ids, types, lengths = lay((question, context), frame, tokenizer.id_dtype)
    before = sum(map(len, frame.ids[:2]))
    firsts = np.where(counts > 0, before + question.lengths, lengths)
    fields = (lengths, rows, firsts, contexts, starts, counts, sizes)
    small = (part.astype(np.int32) for part in fields)
    flat = _joined(spans, np.dtype(np.int32))
    return WindowArrays._make((ids, types, *small, flat))


def _slide(
    sizes: Int[np.ndarray, " n"],
    room: Int[np.ndarray, " n"],
    step: Int[np.ndarray, " n"],
    left: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows over contexts: the context of each, its first token, and how many it has.

    Args:
      sizes: tokens of each context.
      room: of a window on it.
      step: from a window to the next.
      left: whether the windows begin at the end of the context.
    """
    numbers = 1 + np.maximum(-(-(sizes - room) // step), 0)
    owners = np.repeat(np.arange(len(sizes)), numbers)
    place = np.arange(len(owners)) - np.repeat(starts_of(numbers), numbers)
    starts = place * step[owners]
    counts = np.minimum(room[owners], sizes[owners] - starts)
    return owners, sizes[owners] - starts - counts if left else starts, counts


def _joined(lists: Sequence[Any], dtype: np.dtype) -> np.ndarray:
    """Lists of numbers as one array."""
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part, dtype) for part in lists)])
