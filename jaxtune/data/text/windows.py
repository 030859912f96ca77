"""Questions and contexts to token windows: a long context becomes several that overlap."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxtune.core.errors import UserError
from jaxtune.data.ragged import offsets_of
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import window_arrays
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.squad import Answer, Question
from jaxtune.data.text.text_tables import Track
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokens import Tokens
from jaxtune.data.text.window_arrays import Limits, WindowArrays, spans_of
from jaxtune.io import array_cache
from jaxtune.settings.data import AnswerSettings, DataSettings

_FORMAT = "1"  # of what is kept

Make = Callable[[FileTokenizer, Sequence[Question], Limits, Track], tuple[WindowArrays, int]]
"""(tokenizer, questions, limits, progress) -> (windows, how many questions were cut)."""


class Window(NamedTuple):
    """What decoding and scoring need to know of one example.

    Attributes:
      row: which question of the split it belongs to, from 0.
      question: its texts.
      answers: the right ones; None where unlabelled.
      first: the position of the first token of the context.
      spans: where each token of the context begins and ends in it, in characters.
      rules: how an answer is chosen; `allow_no_answer` is True or False.
    """

    row: int
    question: Question
    answers: tuple[Answer, ...] | None
    first: int
    spans: Int32[np.ndarray, "c 2"]
    rules: AnswerSettings


class Windows(Sequence[Window]):
    """The windows of all questions, each made when it is asked for."""

    def __init__(self, rows: Rows, arrays: WindowArrays, rules: AnswerSettings) -> None:
        """Holds what they are made of."""
        self.rows, self.arrays = rows, arrays
        self._begins, self._spans = spans_of(arrays)
        self._rules = {
            may: dataclasses.replace(rules, allow_no_answer=may)
            if rules.allow_no_answer is None
            else rules
            for may in (False, True)
        }

    def __len__(self) -> int:
        """How many there are."""
        return len(self._begins)

    def __getitem__(self, i: Any) -> Any:
        """One window, or some."""
        if isinstance(i, slice):
            return [self[place] for place in range(*i.indices(len(self)))]
        row, first, count = (
            int(part[i]) for part in (self.arrays.rows, self.arrays.firsts, self.arrays.counts)
        )
        begin = int(self._begins[i])
        question, labels = self.rows.inputs[row], self.rows.labels
        answers = None if labels is None else labels[row]
        spans = self._spans[begin : begin + count]
        return Window(row, question, answers, first, spans, self._rules[question.may_lack_answer])

    def __iter__(self) -> Iterator[Window]:
        return (self[i] for i in range(len(self)))


def make(
    tokenizer: FileTokenizer, questions: Sequence[Question], limits: Limits, track: Track
) -> tuple[WindowArrays, int]:
    """The windows of questions, in memory."""
    found, cuts = zip(*window_arrays.parts(tokenizer, questions, limits, track), strict=True)
    fields = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return WindowArrays(*fields), sum(cuts)


def make_once(
    folder: Path,
    tokenizer: FileTokenizer,
    questions: Sequence[Question],
    limits: Limits,
    track: Track,
) -> tuple[WindowArrays, int]:
    """As `make`, which is asked where `folder` has not the answer already."""

    def fill(append: array_cache.Append, notes: dict[str, Any]) -> None:
        notes["num_cut"] = 0
        for found, cut in window_arrays.parts(tokenizer, questions, limits, track):
            append(found._asdict())
            notes["num_cut"] += cut

    return array_cache.once(
        folder,
        _digest(tokenizer, questions, limits),
        read=partial(_read, len(questions)),
        fill=fill,
        make=partial(make, tokenizer, questions, limits, track),
    )


def encode(
    rows: Rows,
    tokenizer: FileTokenizer,
    settings: DataSettings,
    track: Track = iter,
    make: Make = make,
) -> tuple[Examples, list[str]]:
    """Tokenizes questions with their contexts, in windows of at most `max_length` tokens.

    Args:
      rows: inputs `Question`; labels tuples of `Answer`, or None.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length` is read, and all of the answers.
      track: shows progress.
      make: as `windows.make`.

    Returns:
      (Examples with a `Window` each as `info`, and as labels int32 [n 2] the positions of first and
      last token of the first right answer, or (0, 0) where it is not wholly in the window; notes).

    Raises:
      UserError: too few tokens for a question and a context.
    """
    size, stride = settings.tokens.max_length, settings.answers.doc_stride
    limit = _question_limit(tokenizer, size, stride)
    arrays, num_cut = make(tokenizer, rows.inputs, Limits(size, stride, limit), track)
    windows = Windows(rows, arrays, settings.answers)
    labels = None if rows.labels is None else _labels(rows.labels, arrays)
    ids, types = arrays.input_ids, arrays.token_type_ids
    found = Tokens(ids, types, offsets_of(arrays.lengths), tokenizer.pad_token_id)
    notes = _notes(rows, arrays, labels, size, stride)
    if num_cut:
        share = f"{num_cut} of {len(rows.inputs)} questions"
        notes.insert(0, f"{share} are longer than {limit} tokens and were cut")
    return Examples(found, labels, info=windows, spans=True), notes


def once(folder: Path) -> dict[str, Any]:
    """What of a task's data makes no window a second time; they are kept in `folder`."""
    return {"encode": partial(encode, make=partial(make_once, folder))}


def _digest(tokenizer: FileTokenizer, questions: Sequence[Question], limits: Limits) -> str:
    """Of all that the windows follow from."""
    library = version("tokenizers")
    head = ["windows", _FORMAT, library, tokenizer.digest, *limits, len(questions)]
    digest, last = hashlib.sha256(json.dumps(head).encode()), ""
    for question in questions:
        # A context may have many questions, one after the other.
        context = None if question.context == last else question.context
        last = question.context
        digest.update(json.dumps([question.question, context]).encode())
    return digest.hexdigest()


def _read(
    num_rows: int, kept: dict[str, np.ndarray], notes: dict[str, Any]
) -> tuple[WindowArrays, int] | None:
    """An answer; None where it is damaged."""
    arrays = WindowArrays(**kept)
    good = len(arrays.rows) >= num_rows and arrays.lengths.sum() == len(arrays.input_ids)
    return (arrays, int(notes["num_cut"])) if good else None


def _question_limit(tokenizer: FileTokenizer, size: int, stride: int) -> int:
    """The most tokens of a question: each window goes on by a quarter of its size at least."""
    special = tokenizer.num_special_tokens(pair=True)
    limit = size - special - stride - size // 4
    if limit < 1:
        raise UserError(
            f"config.data.max_length is {size}: with doc_stride"
            f" {stride} and {special} special tokens it leaves no room for a question."
            " Make max_length larger, or doc_stride smaller."
        )
    return limit


def _labels(
    answers: Sequence[tuple[Answer, ...]], arrays: WindowArrays
) -> Int32[np.ndarray, "w 2"]:
    """The positions of the first and last token of the first answer; (0, 0) without one."""
    begins, spans = spans_of(arrays)
    own = np.array([(a[0].start, a[0].start + len(a[0].text)) if a else (-1, -1) for a in answers])
    start, stop = own.reshape(-1, 2)[arrays.rows].T
    has = np.flatnonzero((start >= 0) & (arrays.counts > 0))
    lo, count, start, stop = begins[has], arrays.counts[has], start[has], stop[has]
    inside = (spans[lo, 0] <= start) & (stop <= spans[lo + count - 1, 1])
    # One search in all contexts: those of each have numbers of their own.
    apart = 1 + max(int(spans.max(initial=0)), int(own.max(initial=0)))
    context = np.repeat(np.arange(len(arrays.context_sizes)), arrays.context_sizes) * apart
    here = arrays.contexts[has].astype(np.int64) * apart
    # A byte-level token may be a part of a character, and begin with the space before a word.
    first = np.searchsorted(context + spans[:, 1], here + start, side="right")
    last = np.searchsorted(context + spans[:, 0], here + stop, side="left") - 1
    first, last = (np.clip(place, lo, lo + count) - lo for place in (first, last + 1))
    last -= 1
    labels = np.zeros((len(begins), 2), np.int32)
    found = arrays.firsts[has, None] + np.stack([first, last], axis=1)
    labels[has] = np.where((inside & (first <= last))[:, None], found, 0)
    return labels


def _notes(
    rows: Rows, arrays: WindowArrays, labels: np.ndarray | None, size: int, stride: int
) -> list[str]:
    notes, num_rows = [], len(rows.inputs)
    if len(arrays.rows) > num_rows:
        notes.append(
            f"{num_rows} questions make {len(arrays.rows)} windows of at most {size} tokens, which"
            f" share {stride}"
        )
    if labels is not None:
        inside = len(np.unique(arrays.rows[labels[:, 1] > 0]))
        lost = sum(map(bool, rows.labels)) - inside
        if lost:
            notes.append(f"{lost} of {num_rows} answers are wholly in no window; raise doc_stride")
    return notes
