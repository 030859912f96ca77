"""Questions and contexts to token windows: a long context becomes several that overlap."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import tokens
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.squad import Answer, Question
from jaxtune.data.text.text_tables import Track
from jaxtune.data.text.tokenizer import Cut, FileTokenizer
from jaxtune.settings.data import AnswerSettings, DataSettings

_CHUNK = 1000  # questions tokenized at a time, so that progress can be shown


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


def encode(
    rows: Rows, tokenizer: FileTokenizer, settings: DataSettings, track: Track = iter
) -> tuple[Examples, list[str]]:
    """Tokenizes questions with their contexts, in windows of at most `max_length` tokens.

    Args:
      rows: inputs `Question`; labels tuples of `Answer`, or None.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length` is read, and all of the answers.
      track: shows progress.

    Returns:
      (Examples with a `Window` each as `info`, and as labels int32 [n 2] the positions of first and
      last token of the first right answer, or (0, 0) where it is not wholly in the window; notes).

    Raises:
      UserError: too few tokens for a question and a context.
    """
    size, stride = settings.tokens.max_length, settings.answers.doc_stride
    limit = _question_limit(tokenizer, size, stride)
    ids: list[list[int]] = []
    types: list[list[int]] = []
    windows: list[Window] = []
    num_cut = 0
    for start in track(range(0, len(rows.inputs), _CHUNK)):
        part = rows.inputs[start : start + _CHUNK]
        questions, cut = _cut_questions(tokenizer, part, limit)
        num_cut += cut
        pairs = zip(questions, (question.context for question in part), strict=True)
        encoded = tokenizer.encode([*pairs], cut=Cut(size, "only_second", stride))
        for i, whole in enumerate(encoded):
            for piece in (whole, *whole.overflowing):
                ids.append(piece.ids)
                types.append(piece.type_ids)
                windows.append(_window(rows, start + i, piece, settings.answers))
    labels = None if rows.labels is None else np.array([_label(w) for w in windows], np.int32)
    found = tokens.join(ids, types, tokenizer.pad_token_id)
    examples = Examples(found, labels, info=windows, spans=True)
    notes = _notes(examples, len(rows.inputs), size, stride)
    if num_cut:
        share = f"{num_cut} of {len(rows.inputs)} questions"
        notes.insert(0, f"{share} are longer than {limit} tokens and were cut")
    return examples, notes


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


def _cut_questions(
    tokenizer: FileTokenizer, questions: Sequence[Question], limit: int
) -> tuple[list[str], int]:
    """The questions cut to so many tokens, and how many were cut."""
    # White space before a question would be many tokens; some of SQuAD's have that.
    texts = [question.question.strip() for question in questions]
    num_cut = 0
    for i, encoded in enumerate(tokenizer.encode(texts, special=False)):
        if len(encoded) > limit:
            texts[i] = texts[i][: encoded.offsets[limit][0]].rstrip()
            num_cut += 1
    return texts, num_cut


def _window(rows: Rows, row: int, encoded: Any, rules: AnswerSettings) -> Window:
    question = rows.inputs[row]
    sides = encoded.sequence_ids
    count = sides.count(1)
    first = sides.index(1) if count else len(sides)
    spans = encoded.offsets[first : first + count]
    if rules.allow_no_answer is None:
        rules = dataclasses.replace(rules, allow_no_answer=question.may_lack_answer)
    answers = None if rows.labels is None else rows.labels[row]
    return Window(row, question, answers, first, np.array(spans, np.int32).reshape(-1, 2), rules)


def _label(window: Window) -> tuple[int, int]:
    """The positions of the first and last token of the first answer; (0, 0) without one."""
    if not window.answers or not len(window.spans):
        return 0, 0
    answer = window.answers[0]
    stop = answer.start + len(answer.text)
    begins, ends = window.spans.T
    if answer.start < begins[0] or stop > ends[-1]:
        return 0, 0
    # A byte-level token may be a part of a character, and begin with the space before a word.
    start = int(np.searchsorted(ends, answer.start, side="right"))
    end = int(np.searchsorted(begins, stop, side="left")) - 1
    return (window.first + start, window.first + end) if start <= end else (0, 0)


def _notes(examples: Examples, num_rows: int, size: int, stride: int) -> list[str]:
    notes, windows = [], examples.info
    if len(windows) > num_rows:
        notes.append(
            f"{num_rows} questions make {len(windows)} windows of at most {size} tokens, which"
            f" share {stride}"
        )
    if examples.labels is not None:
        inside = {w.row for w, (_, end) in zip(windows, examples.labels, strict=True) if end}
        lost = len({w.row for w in windows if w.answers} - inside)
        if lost:
            notes.append(f"{lost} of {num_rows} answers are wholly in no window; raise doc_stride")
    return notes
