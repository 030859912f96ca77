"""Questions and contexts to token windows: a long context becomes several that overlap."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.squad import Answer, Question
from jaxtune.data.text.text_tables import Track
from jaxtune.settings import DataSettings

_CHUNK = 1000  # questions tokenized at a time, so that progress can be shown


class Rules(NamedTuple):
    """How an answer is chosen; the fields of `DataSettings`.

    Attributes:
      max_answer_length: in tokens.
      n_best: answers that are compared.
      no_answer_threshold: what the null score must exceed the best span's by; in nats.
      allow_no_answer: whether a question may have none.
    """

    max_answer_length: int
    n_best: int
    no_answer_threshold: float
    allow_no_answer: bool


class Window(NamedTuple):
    """What decoding and scoring need to know of one example.

    Attributes:
      row: which question of the split it belongs to, from 0.
      question: its texts.
      answers: the right ones; None where unlabelled.
      first: the position of the first token of the context.
      spans: where each token of the context begins and ends in it, in characters.
      rules: how an answer is chosen.
    """

    row: int
    question: Question
    answers: tuple[Answer, ...] | None
    first: int
    spans: Int32[np.ndarray, "c 2"]
    rules: Rules


def encode(
    rows: Rows, tokenizer: Any, settings: DataSettings, track: Track = iter
) -> tuple[Examples, list[str]]:
    """Tokenizes questions with their contexts, in windows of at most `max_length` tokens.

    The tokenizer's own truncation and padding settings are not used.

    Args:
      rows: inputs `Question`; labels tuples of `Answer`, or None.
      tokenizer: a fast one, from `load_tokenizer`.
      settings: `max_length`; `doc_stride`, the tokens that two windows share; and the rules.
      track: shows progress.

    Returns:
      (Examples with one `Window` each as `info`, and as labels int32 [n 2] the positions of first
      and last token of the first right answer, or (0, 0) where it is not wholly in the window;
      notes).

    Raises:
      UserError: a tokenizer without offsets, or too few tokens for a question and a context.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer does not tell which characters a token is"
            " of, which question_answering needs: expected one with a tokenizer.json."
        )
    limit = _question_limit(tokenizer, settings)
    ids: list[list[int]] = []
    types: list[list[int]] = []
    windows: list[Window] = []
    num_cut = 0
    for start in track(range(0, len(rows.inputs), _CHUNK)):
        part = rows.inputs[start : start + _CHUNK]
        questions, cut = _cut_questions(tokenizer, part, limit)
        num_cut += cut
        encoded = tokenizer(
            questions,
            [question.context for question in part],
            truncation="only_second",
            max_length=settings.max_length,
            stride=settings.doc_stride,
            padding=False,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            verbose=False,
        )
        ids += encoded["input_ids"]
        types += encoded["token_type_ids"]
        for w, i in enumerate(encoded["overflow_to_sample_mapping"]):
            windows.append(_window(rows, start + i, encoded, w, settings))
    tokenizer.backend_tokenizer.no_truncation()  # else it would be saved with the model
    offsets = np.concatenate([[0], np.cumsum([len(tokens) for tokens in ids])]).astype(np.int64)
    labels = None if rows.labels is None else np.array([_label(w) for w in windows], np.int32)
    flat = (_flat(ids), _flat(types), offsets, labels)
    examples = Examples(*flat, pad_token_id=tokenizer.pad_token_id, info=windows, spans=True)
    return examples, _notes(examples, len(rows.inputs), num_cut, limit, settings)


def _question_limit(tokenizer: Any, settings: DataSettings) -> int:
    """The most tokens of a question: each window goes on by a quarter of `max_length` at least."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    context = settings.doc_stride + settings.max_length // 4
    limit = settings.max_length - special - context
    if limit < 1:
        raise UserError(
            f"config.data.max_length is {settings.max_length}: with doc_stride"
            f" {settings.doc_stride} and {special} special tokens it leaves no room for a question."
            " Make max_length larger, or doc_stride smaller."
        )
    return limit


def _cut_questions(
    tokenizer: Any, questions: Sequence[Question], limit: int
) -> tuple[list[str], int]:
    """The questions cut to so many tokens, and how many were cut."""
    # White space before a question would be many tokens; some of SQuAD's have that.
    texts = [question.question.strip() for question in questions]
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    num_cut = 0
    for i, spans in enumerate(encoded["offset_mapping"]):
        if len(spans) > limit:
            texts[i] = texts[i][: spans[limit][0]].rstrip()
            num_cut += 1
    return texts, num_cut


def _window(rows: Rows, row: int, encoded: Any, w: int, settings: DataSettings) -> Window:
    question = rows.inputs[row]
    sides = encoded.sequence_ids(w)
    count = sides.count(1)
    first = sides.index(1) if count else len(sides)
    spans = encoded["offset_mapping"][w][first : first + count]
    allowed = settings.allow_no_answer
    rules = Rules(
        settings.max_answer_length,
        settings.n_best,
        settings.no_answer_threshold,
        question.may_lack_answer if allowed is None else allowed,
    )
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


def _flat(lists: list[list[int]]) -> Int32[np.ndarray, " T"]:
    return np.fromiter(chain.from_iterable(lists), np.int32)


def _notes(
    examples: Examples, num_rows: int, num_cut: int, limit: int, settings: DataSettings
) -> list[str]:
    notes, windows = [], examples.info
    if num_cut:
        notes.append(
            f"{num_cut} of {num_rows} questions are longer than {limit} tokens and were cut"
        )
    if len(windows) > num_rows:
        notes.append(
            f"{num_rows} questions make {len(windows)} windows of at most {settings.max_length}"
            f" tokens, which share {settings.doc_stride}"
        )
    if examples.labels is not None:
        inside = {w.row for w, (_, end) in zip(windows, examples.labels, strict=True) if end}
        lost = len({w.row for w in windows if w.answers} - inside)
        if lost:
            notes.append(f"{lost} of {num_rows} answers are wholly in no window; raise doc_stride")
    return notes
