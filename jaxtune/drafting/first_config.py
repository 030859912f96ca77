"""A first config for somebody's data: the look, the model, the recipe, checked as training does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jaxtune.data.images import images
from jaxtune.data.look.columns import Column, describe
from jaxtune.data.look.opening import Opened, open_source, rename
from jaxtune.data.look.roles import Doubt, Guess, Hints, guess
from jaxtune.data.sources import conll
from jaxtune.data.sources.table import Table, check_columns, num_rows
from jaxtune.drafting.config_draft import Line, Other, settings_in
from jaxtune.drafting.first_check import checked
from jaxtune.drafting.first_facts import class_lines, length_lines, measure, texts_of
from jaxtune.drafting.first_model import FirstModel, choose_model, is_causal
from jaxtune.drafting.machine import Machine
from jaxtune.drafting.recipe import recipe
from jaxtune.settings.data import DataSettings


class Found(NamedTuple):
    """What was found of the data, for a person and for the config.

    Attributes:
      opened: the training rows as they were read.
      columns: what they seem to be.
      guess: what is read and what is learnt.
      model: that is trained.
      lines: the settings.
      others: what may be meant otherwise.
      facts: name and text, for a table.
      notes: what a person should know.
    """

    opened: Opened
    columns: tuple[Column, ...]
    guess: Guess
    model: FirstModel
    lines: tuple[Line, ...]
    others: tuple[Other, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def look(path: str, hints: Hints) -> tuple[Opened, tuple[Column, ...], Guess]:
    """The training rows, what their columns seem to be, and what for.

    Raises:
      UserError: there is no such file, it cannot be read, or has no texts.
    """
    opened = open_source(path)
    if opened.is_images:
        data = DataSettings(source=opened.source)
        table = images.CLASSES.load(data.source, data.columns)["train"]
        chosen = Guess("image_classification", ("image",), ("label",))
        return opened._replace(train=table), (), chosen
    table = opened.train
    columns = tuple(
        describe(name, values, table.class_names.get(name, ()))
        for name, values in table.columns.items()
        if name != conll.LINES
    )
    _check_hints(table, hints)
    if opened.words:
        labels = (conll.TAGS,) if conll.TAGS in table.columns else ()
        return opened, columns, Guess("token_classification", (conll.WORDS,), labels)
    chosen = guess(table, columns, hints, opened.header)
    if opened.bare is not None:
        return _with_bare(opened, opened.bare, columns, chosen)
    return (opened, columns, chosen) if opened.header else _named(opened, columns, chosen)


def _with_bare(
    opened: Opened, file: str, columns: tuple[Column, ...], chosen: Guess
) -> tuple[Opened, tuple[Column, ...], Guess]:
    """The same, with names for the columns of a file of another split, which has no header."""
    table = open_source(file).train
    described = tuple(describe(name, values) for name, values in table.columns.items())
    own = guess(table, described, Hints(chosen.task), has_header=False)
    old, new = ((*g.texts, *g.labels) for g in (own, chosen))
    if len(old) != len(new):
        return opened, columns, chosen
    named = dict(zip(old, new, strict=True))
    order = tuple(named.get(name, name) for name in table.columns)
    files = replace(opened.source.files, column_names=order)
    told = f"{file} has no header row; of its columns {', '.join(order)} are taken"
    doubts = (*chosen.doubts, Doubt(told))
    source = replace(opened.source, files=files)
    return opened._replace(source=source), columns, chosen._replace(doubts=doubts)


def _check_hints(table: Table, hints: Hints) -> None:
    wanted = [*hints.texts, *([hints.label] if hints.label is not None else [])]
    check_columns(table.columns, wanted, table.source, "Name columns that are there.")


def _named(
    opened: Opened, columns: Sequence[Column], chosen: Guess
) -> tuple[Opened, tuple[Column, ...], Guess]:
    """The same with names for the columns of a table without a header."""
    texts = ("text",) if len(chosen.texts) == 1 else ("text1", "text2")
    labels = ("label",) if len(chosen.labels) == 1 else chosen.labels
    new = dict(zip((*chosen.texts, *chosen.labels), (*texts, *labels), strict=True))
    doubts = tuple(
        Doubt(
            _renamed(doubt.told, new), {k: _renamed_value(v, new) for k, v in doubt.lines.items()}
        )
        for doubt in chosen.doubts
    )
    columns = tuple(c._replace(name=new.get(c.name, c.name)) for c in columns)
    return rename(opened, new), columns, chosen._replace(texts=texts, labels=labels, doubts=doubts)


def _renamed(text: str, new: Mapping[str, str]) -> str:
    for old, name in new.items():
        text = text.replace(repr(old), repr(name))
    return text


def _renamed_value(value: Any, new: Mapping[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(new.get(item, item) for item in value)
    return new.get(value, value)


def first_config(
    found: tuple[Opened, tuple[Column, ...], Guess], model: str | None, machine: Machine
) -> Found:
    """The settings that train a model on the data, read and checked as a run does.

    Args:
      found: from `look`.
      model: a folder or a hub id; None for one that fits.
      machine: that it is to run on.

    Raises:
      UserError: the data cannot be trained on as it is, or the model cannot do it.
    """
    opened, columns, chosen = found
    if chosen.task == "masked_lm" and is_causal(model):
        chosen = chosen._replace(task="causal_lm")
    lines = [*_data_lines(opened, chosen)]
    size = num_rows(opened.train)
    if chosen.task not in ("causal_lm", "masked_lm"):
        lines += _split_lines(size)
    lines, data = checked(lines, chosen)
    texts = texts_of(data, chosen.task)
    first = choose_model(model, chosen.task, texts, machine.accelerated)
    why = "" if model is not None else f"No model was named: {first.why}."
    lines[1] = Line("model.path", first.path, why)
    lengths, facts, notes = measure(texts, first)
    lines += length_lines(chosen.task, lengths, first)
    rows = len(data.splits["train"].inputs)
    if chosen.task in ("causal_lm", "masked_lm"):
        block = next((ln.value for ln in lines if ln.setting == "data.max_length"), 128)
        rows = max(sum(lengths) * rows // max(len(lengths) * block, 1), 1)
    lines += [Line(*choice) for choice in recipe(chosen.task, first.size, rows)]
    more, class_facts, class_notes = class_lines(chosen, data)
    lines += more
    if machine.bfloat16:
        why = "This machine multiplies bfloat16 quicker than float32:"
        lines.append(Line("precision.compute_dtype", "bfloat16", why, is_set=False))
    settings_in(lines)
    others = tuple(_other(doubt, lines) for doubt in chosen.doubts)
    facts = (*class_facts, *facts)
    notes = (*opened.notes, *data.notes, *class_notes, *notes)
    return Found(opened, columns, chosen, first, tuple(lines), others, facts, notes)


def _other(doubt: Doubt, lines: Sequence[Line]) -> Other:
    """A doubt as it stands in the file: a metric of one task is none of another's."""
    has_metric = any(line.setting == "train.best_metric" for line in lines)
    metric = {"train.best_metric": None} if has_metric and "task" in doubt.lines else {}
    return Other(doubt.told, {**doubt.lines, **metric})


# --- The data -------------------------------------------------------------------------------


def _data_lines(opened: Opened, chosen: Guess) -> list[Line]:
    files = opened.source.files
    lines = [Line("task", chosen.task), Line("model.path", "to be chosen")]
    lines.append(Line("data.path", opened.source.path))
    if files.format is not None:
        lines.append(Line("data.format", files.format, "Its name does not say how to read it."))
    if files.encoding != "utf-8":
        why = "Its bytes are not UTF-8; if letters look wrong, this is."
        lines.append(Line("data.encoding", files.encoding, why))
    if files.column_names:
        why = "For a file without a header row."
        lines.append(Line("data.column_names", files.column_names, why))
    if chosen.task == "image_classification":
        lines.append(Line("data.image_column", chosen.texts[0]))
    else:
        lines.append(Line("data.text_columns", chosen.texts))
    if len(chosen.labels) == 1:
        lines.append(Line("data.label_column", chosen.labels[0]))
    elif chosen.labels:
        lines.append(Line("data.label_columns", chosen.labels))
    if chosen.separator:
        lines.append(Line("data.label_separator", chosen.separator))
    return lines


def _split_lines(size: int) -> list[Line]:
    """What is held out where the data brings no such split."""
    share = 0.2 if size < 1000 else 0.1 if size <= 50_000 else 5000.0
    lines = [Line("data.validation_size", share, "")]
    if size >= 2000:
        why = "Rows for a score of the end, which chose nothing."
        lines.append(Line("data.test_size", 0.1 if size <= 50_000 else 5000.0, why))
    return lines
