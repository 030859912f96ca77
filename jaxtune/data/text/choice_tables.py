"""Tables whose rows are a prompt with several choices, of which one is right."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources import locate
from jaxtune.data.sources.locate import DataSource
from jaxtune.data.sources.new_rows import open_new, source_columns
from jaxtune.data.sources.rows import Reader, Rows
from jaxtune.data.sources.table import Table, bad_row, check_columns, column, num_rows, where
from jaxtune.data.sources.table import shown as shown_names
from jaxtune.data.text import labels
from jaxtune.data.text.group_tables import texts_of
from jaxtune.data.text.new_values import BLANK, known
from jaxtune.data.text.pair_groups import Pairs
from jaxtune.settings.data import ColumnSettings

PLAIN = ("question", "choices")
"""The columns of a prompt and of a list of its choices, where nobody names others."""

_UNSET = ColumnSettings().text_columns
_PROMPTS = ("premise", "question", "prompt", "context")
_CHOICE = re.compile(r"(?:choice|option|ending|answer)[_ ]?(?:\d+|[a-h])", re.IGNORECASE)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Choice(NamedTuple):
    """A column of choices.

    Attributes:
      name: of the column: a text in each row, or a list of texts.
      before: the column of what each of its texts begins with; None for nothing.
    """

    name: str
    before: str | None = None


class Columns(NamedTuple):
    """Of a table of prompts with choices.

    Attributes:
      prompt: its column.
      choices: one column a choice, or one with lists of them.
    """

    prompt: str
    choices: tuple[Choice, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns that are read."""
        every = [self.prompt]
        for choice in self.choices:
            every += [choice.name] if choice.before is None else [choice.before, choice.name]
        return tuple(dict.fromkeys(every))


def find_columns(table: Table, named: Sequence[str]) -> Columns:
    """The columns of the prompt and of the choices.

    Args:
      table: of any split.
      named: the prompt's column, then those of the choices, `A+B` for the text of A before that of
        B; or the default of `config.data.text_columns`, which has them found: those of SWAG, of
        HellaSwag, or a prompt with `choices`, a list, or with columns such as `choice1`, `optionB`.

    Raises:
      UserError: no such columns.
    """
    found = list(table.columns)
    texts = _found(found) if not named or tuple(named) == _UNSET else tuple(named)
    if len(texts) < 2:
        raise UserError(
            f"{table.source}: found the columns {shown_names(found)}, but expected a prompt and its"
            " choices, such as sent1, sent2, ending0, ending1, ... or question, choices. Set"
            " config.data.text_columns=PROMPT,CHOICE,CHOICE, where BEFORE+CHOICE puts the text of"
            " one column before that of another."
        )
    columns = Columns(texts[0], tuple(_choice(text, found) for text in texts[1:]))
    check_columns(found, columns.names, table.source)
    return columns


def _found(known: list[str]) -> tuple[str, ...]:
    """As `config.data.text_columns` would name them; () where no names are known ones."""
    endings = [name for name in known if re.fullmatch(r"ending\d+", name)]
    if {"sent1", "sent2"} <= {*known} and len(endings) > 1:
        return ("sent1", *(f"sent2+{name}" for name in endings))
    if {"ctx_a", "ctx_b", "endings"} <= {*known}:
        return ("ctx_a", "ctx_b+endings")
    prompt = next((name for name in _PROMPTS if name in known), None)
    choices = [name for name in known if _CHOICE.fullmatch(name)]
    choices = ["choices"] if "choices" in known else choices if len(choices) > 1 else []
    return (prompt, *choices) if prompt and choices else ()


def _choice(text: str, known: list[str]) -> Choice:
    before, plus, name = text.partition("+")
    return Choice(name, before) if plus and text not in known else Choice(text)


def pairs_of(row: Mapping[str, Any], named: Sequence[str] = ()) -> Pairs:
    """The prompt of one row with each of its choices.

    Args:
      row: values by the name of their column.
      named: as of `find_columns`.

    Raises:
      UserError: it lacks a prompt or choices.
    """
    table = Table({name: [value] for name, value in row.items()}, "the row", [1], {}, unit="")
    return _row(table, 0, find_columns(table, named))[0]


class Offered(NamedTuple):
    """The choices of a row.

    Attributes:
      texts: of each that there is.
      places: of each, from 0; one that a row has not counts too.
      names: under which each may be meant by a label, beside its place; empty where there is none.
    """

    texts: list[str]
    places: list[int]
    names: list[str]


def load_tables(source: DataSource, columns: ColumnSettings) -> dict[str, Table]:
    """A table for each split."""
    named = columns.text_columns
    plain = () if named == _UNSET or any("+" in name for name in named) else named
    return locate.load_source(source, plain, label=columns.label_column)


def _has_labels(table: Table, columns: ColumnSettings) -> bool:
    return labels.has_targets(table, columns.label_column)


def _rows(table: Table, columns: ColumnSettings, names: tuple[str, ...]) -> Rows:
    """Rows whose inputs are `Pairs`, and whose labels have 1 at the right one, float32."""
    del names
    own = find_columns(table, columns.text_columns)
    found, right = [], []
    values = column(table, columns.label_column)
    for i in range(num_rows(table)):
        pairs, offered = _row(table, i, own)
        place = _right(table, i, columns.label_column, values[i], offered)
        found.append(pairs)
        right.append(np.eye(len(pairs), dtype=np.float32)[place])
    counts = {len(pairs) for pairs in found}
    many = len(counts) > 1
    notes = (f"the rows have from {min(counts)} to {max(counts)} choices",) if many else ()
    return Rows(found, right, notes=notes)


def _row(table: Table, i: int, own: Columns) -> tuple[Pairs, Offered]:
    prompt = table.columns[own.prompt][i]
    if not isinstance(prompt, str) or not prompt.strip():
        raise _bad(table, i, own.prompt, prompt, "a text that is not empty")
    offered, place = Offered([], [], []), 0
    for choice in own.choices:
        value, names = table.columns[choice.name][i], [choice.name]
        if isinstance(value, dict) and "text" in value:  # as ARC and CommonsenseQA have it
            value, names = value["text"], _names(value.get("label"))
        texts = texts_of(table, i, choice.name, value)
        if choice.before is not None:
            before = table.columns[choice.before][i]
            if not (labels.is_blank(before) or isinstance(before, str)):
                raise _bad(table, i, choice.before, before, "a text")
            start = "" if labels.is_blank(before) else f"{before} "
            texts = [f"{start}{text}" for text in texts]
        offered.texts.extend(texts)
        offered.places.extend(range(place, place + len(texts)))
        offered.names.extend(names if len(names) == len(texts) else [""] * len(texts))
        place += max(len(texts), 1)
    if len(offered.texts) < 2:
        wrong = f"found {len(offered.texts)} choices, but expected two at least. Remove the row, or"
        raise bad_row(table, i, f"{wrong} check config.data.text_columns.")
    return tuple((prompt, text) for text in offered.texts), offered


def _names(value: Any) -> list[str]:
    return [*map(str, value)] if isinstance(value, list | tuple | np.ndarray) else []


def _right(table: Table, i: int, name: str, value: Any, offered: Offered) -> int:
    """The place of the right choice: by its name, its number from 0, or a letter."""
    label = labels.label_of(value, table.class_names.get(name, ()))
    numbers = [str(place) for place in offered.places]
    letters = [_LETTERS[place : place + 1] for place in offered.places]
    for spelled in (offered.names, numbers, letters):
        if label and label in spelled:
            return spelled.index(label)
    many = len(offered.texts)
    raise bad_row(
        table,
        i,
        f"found {labels.shown(value)} in the column {name!r}, but expected which of the {many}"
        f" choices is right: a number from 0 to {many - 1}, a letter from A, or the name of its"
        " column. Correct or remove the row, or check config.data.label_column.",
    )


def _bad(table: Table, i: int, name: str, value: Any, expected: str) -> UserError:
    wrong = f"found {labels.shown(value)} in the column {name!r}, but expected {expected}."
    return bad_row(
        table, i, f"{wrong} Fill in or remove the row, or check config.data.text_columns."
    )


CHOICES = Reader(load_tables, _has_labels, lambda *_: (), _rows, what="prompts")
"""A prompt and its choices a row: labels a float32 array for each, 1 at the right choice."""


def read_new(source: Path | Table, columns: Sequence[str], encoding: str) -> Rows:
    """Prompts with choices, to predict on; a row without them has a reason.

    Args:
      source: a table that `data.sources.files.read_file` reads, or one in memory.
      columns: as `find_columns` takes them.
      encoding: of the file.

    Raises:
      UserError: names the file, the line and the column of what is wrong.
    """
    table = open_new(source, encoding, "prompts with choices")
    own, faults = find_columns(table, columns), table.skipped.kept
    reasons, found, odd = [], [], next(iter(faults.values()), None)
    for i in range(num_rows(table)):
        reason, pairs = faults.get(i, ""), ((BLANK, BLANK),) * 2
        if not reason and labels.is_blank(table.columns[own.prompt][i]):
            reason = f"{where(table, i)}: the column {own.prompt!r} is empty"
        elif not reason:
            try:
                pairs, _ = _row(table, i, own)
            except UserError as error:
                reason = str(error)
                odd = odd or reason
        reasons.append(reason)
        found.append(pairs)
    told = known(reasons, odd, table.source)
    return Rows(found, None, reasons=told, columns=source_columns(table))
