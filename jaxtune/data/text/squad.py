"""Tables of questions, contexts and the answers that stand in them: how they are read."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources.bad_rows import BadRowsError
from jaxtune.data.sources.locate import DataSource, load_source
from jaxtune.data.sources.new_rows import open_new, source_columns
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table, column, num_rows, where
from jaxtune.data.text import labels
from jaxtune.data.text.new_values import new_texts
from jaxtune.settings.data import ColumnSettings, DataSettings

COLUMNS = ("question", "context")
"""The text columns, where the settings do not name two."""

_ANSWERS = "answers"
_UNANSWERABLE = "train has unanswerable questions"  # a column, which no file has
_OFF_BY = 5  # characters; some converted sets are a few off
_SHOWN = 5  # questions in a note
_LAST_OF_ONE_UNIT = "\uffff"  # a character beyond it is two units of UTF-16


class Question(NamedTuple):
    """What is asked of what.

    Attributes:
      id: as the source has it, or the line.
      question: a text.
      context: where the answer stands.
      may_lack_answer: whether the training data has unanswerable questions.
    """

    id: str
    question: str
    context: str
    may_lack_answer: bool = False


class Answer(NamedTuple):
    """A piece of a context.

    Attributes:
      text: as it stands there, without white space around it.
      start: in characters from 0.
    """

    text: str
    start: int


def load(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """A table for each split, which remembers whether train has unanswerable questions.

    Raises:
      UserError: as `locate.load_tables` does.
    """
    tables = load_source(source, _text_columns(columns.text_columns))
    values = tables["train"].columns.get(_label_column(columns), ())
    unanswerable = any(_pairs(value) == [] for value in values)
    return {
        split: table._replace(
            columns=table.columns | {_UNANSWERABLE: [unanswerable] * num_rows(table)}
        )
        for split, table in tables.items()
    }


def has_labels(table: Table, columns: ColumnSettings) -> bool:
    """False where no question has an answer: that is how test sets withhold them."""
    values = table.columns.get(_label_column(columns), ())
    return not all(value in (None, "") or _pairs(value) == [] for value in values)


def rows(table: Table, columns: ColumnSettings, class_names: tuple[str, ...]) -> Rows:
    """Checked questions with their answers; those on one context stay on one side of a split.

    Args:
      table: the text columns, and answers as {"text": [...], "answer_start": [...]}, as a list of
        {"text", "answer_start"}, or as either in JSON; `id` where there is one.
      columns: their names.
      class_names: not read.

    Returns:
      Inputs `Question`; labels tuples of `Answer`, empty where a question has none.

    Raises:
      UserError: a blank text, malformed answers, or one that does not stand where it says.
    """
    del class_names
    name = _label_column(columns)
    questions = _questions(table, _text_columns(columns.text_columns))
    places = [f"{where(table, i)}, question {q.id!r}" for i, q in enumerate(questions)]
    names = [name] * len(places)
    pairs = _each(_checked_pairs, column(table, name), places, names)
    in_utf16 = _count_utf16(questions, pairs)
    if in_utf16:
        pairs = [_from_utf16(q.context, part) for q, part in zip(questions, pairs, strict=True)]
    contexts = [question.context for question in questions]
    answers = _each(_answers, pairs, contexts, places)
    notes = _moved(questions, pairs, answers)
    if in_utf16:
        notes.insert(0, "answer_start counts UTF-16 units here, by which all answers agree")
    return Rows(questions, answers, contexts, notes=tuple(notes))


def read_new(source: Path | Table, columns: Sequence[str], encoding: str) -> Rows:
    """The questions of a file, to be answered; one without both texts has a reason.

    Args:
      source: SQuAD JSON, or a table that `data.sources.files.read_file` reads.
      columns: of questions and of contexts; () takes `question` and `context`.
      encoding: of the file.

    Raises:
      UserError: names the file, the line and the column of what is wrong.
    """
    names = _text_columns(columns)
    table = open_new(source, encoding, "questions and contexts", names)
    texts, reasons = new_texts(table, names)
    columns_of = dict(zip(names, map(list, zip(*texts, strict=True)), strict=True))
    questions = _questions(table._replace(columns=table.columns | columns_of), names)
    contexts = [question.context for question in questions]
    return Rows(questions, None, contexts, reasons=reasons, columns=source_columns(table))


def resolve(settings: DataSettings, train: Rows) -> DataSettings:
    """The settings with `allow_no_answer` as it follows from the training rows, where it is unset.

    Args:
      settings: of the data.
      train: from `rows`, of a table from `load`.
    """
    if settings.answers.allow_no_answer is not None:
        return settings
    allowed = train.inputs[0].may_lack_answer
    answers = dataclasses.replace(settings.answers, allow_no_answer=allowed)
    return dataclasses.replace(settings, answers=answers)


QUESTIONS = Reader(load, has_labels, lambda *_: (), rows, what="questions' contexts")
"""Questions with answers that stand in a context."""


def _text_columns(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) == 2:
        return tuple(names)
    if tuple(names) not in ((), ColumnSettings().text_columns):
        raise UserError(
            f"config.data.text_columns is {', '.join(names)}: expected two names, of questions and"
            f" of contexts, such as {','.join(COLUMNS)}."
        )
    return COLUMNS


def _label_column(columns: ColumnSettings) -> str:
    is_set = columns.label_column != ColumnSettings().label_column
    return columns.label_column if is_set else _ANSWERS


def _questions(table: Table, columns: tuple[str, ...]) -> list[Question]:
    ids = table.columns.get("id", [None] * num_rows(table))
    may_lack = table.columns.get(_UNANSWERABLE, [False] * num_rows(table))
    return [
        Question(str(table.rows[i] if ids[i] is None else ids[i]), question, context, may_lack[i])
        for i, (question, context) in enumerate(labels.text_rows(table, columns))
    ]


def _pairs(value: Any) -> list[tuple[str, int]] | None:
    """(text, answer_start) of each answer that is not blank; None for what is no answers."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list):
            return None
        if len(texts) != len(starts):
            return None
        value = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return None
    pairs = [(item.get("text"), item.get("answer_start")) for item in value]
    if not all(isinstance(t, str) and type(s) is int for t, s in pairs):
        return None
    return [(t, s) for t, s in pairs if t.strip()]


def _each(check: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """What a check gives for each row.

    Raises:
      BadRowsError: it refuses one.
    """
    found = []
    for i, values in enumerate(zip(*columns, strict=True)):
        try:
            found.append(check(*values))
        except UserError as error:
            raise BadRowsError({i: str(error)}) from None
    return found


def _checked_pairs(value: Any, place: str, name: str) -> list[tuple[str, int]]:
    pairs = _pairs(value)
    if pairs is None:
        shown = "nothing" if value is None else repr(value)[:80]
        raise UserError(
            f"{place}: found {shown} in the column {name!r}, but expected answers such as"
            ' {"text": ["Paris"], "answer_start": [17]}, and empty lists where there is none.'
            " Correct or remove the row, or set config.data.label_column."
        )
    return pairs


def _count_utf16(questions: Sequence[Question], pairs: Sequence[list[tuple[str, int]]]) -> bool:
    """Whether starts count UTF-16 units: where these and characters differ, all answers say so."""
    fit_units = fit_characters = True
    for question, part in zip(questions, pairs, strict=True):
        context = question.context
        for (text, start), (_, moved) in zip(part, _from_utf16(context, part), strict=True):
            if moved != start:
                fit_units &= context.startswith(text, max(moved, 0))
                fit_characters &= context.startswith(text, max(start, 0))
    return fit_units and not fit_characters


def _from_utf16(context: str, pairs: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Starts in characters, from such in UTF-16 units, of which some characters are two."""
    if context.isascii() or max(context) <= _LAST_OF_ONE_UNIT:
        return pairs
    units = [1 + (c > _LAST_OF_ONE_UNIT) for c in context]
    ends = np.cumsum(units)
    return [(text, int(np.searchsorted(ends, start, side="right"))) for text, start in pairs]


def _answers(pairs: list[tuple[str, int]], context: str, place: str) -> tuple[Answer, ...]:
    """The answers of one question, each where it stands or at the nearest equal text.

    Raises:
      UserError: there is none within a few characters.
    """
    answers = []
    for found, start in pairs:
        near = range(max(start - _OFF_BY, 0), max(start + _OFF_BY + 1, 0))
        starts = [s for s in near if context.startswith(found, s)]
        if not starts:
            there = context[max(start, 0) : max(start, 0) + len(found)]
            raise UserError(
                f"{place}: found the answer {found[:80]!r} with answer_start {start}, but the"
                f" context has {there[:80]!r} there. Correct or remove the row: answer_start counts"
                " characters of the context from 0."
            )
        at = min(starts, key=lambda s: abs(s - start))
        answers.append(Answer(found.strip(), at + len(found) - len(found.lstrip())))
    return tuple(answers)


def _moved(
    questions: Sequence[Question],
    pairs: Sequence[list[tuple[str, int]]],
    answers: Sequence[tuple[Answer, ...]],
) -> list[str]:
    """A note that counts and names the answers that do not stand where their start says."""
    moved = [
        (question, answer, start)
        for question, part, own in zip(questions, pairs, answers, strict=True)
        for (text, start), answer in zip(part, own, strict=True)
        if answer.start != start + len(text) - len(text.lstrip())
    ]
    if not moved:
        return []
    total = sum(map(len, answers))
    told = ", ".join(
        f"{question.id[:40]!r} ({answer.text[:20]!r} from {start} to {answer.start})"
        for question, answer, start in moved[:_SHOWN]
    )
    more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    return [
        f"{len(moved)} of {total} answers do not stand at their answer_start and were moved to the"
        f" nearest equal text, at most {_OFF_BY} characters away, of the questions {told}{more}"
    ]
