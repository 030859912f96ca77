"""What the columns of a table are for, and so the task; what is not sure is told."""

from collections.abc import Sequence

from jaxtune.data.look.columns import Column
from jaxtune.data.look.guesses import Doubt, Guess, Hints
from jaxtune.data.look.labels import choose_label, flag_columns, rank_labels, task_of, with_task
from jaxtune.data.look.nested import guess_nested, refuse_word_rows
from jaxtune.data.look.texts import choose_texts
from jaxtune.data.sources.table import Table, num_rows

_SHOWN = 3  # columns in a doubt


def guess(table: Table, columns: Sequence[Column], hints: Hints, has_header: bool) -> Guess:
    """What the columns of a table are for.

    Args:
      table: the rows of training.
      columns: what they seem to be.
      hints: what the person said, which is not doubted.
      has_header: whether the names of the columns are those of a file.

    Raises:
      UserError: no column that can be read.
    """
    few = num_rows(table) // 2
    columns = [column for column in columns if column.missing <= few] or columns
    found = guess_nested(table, columns, hints)
    if found is not None:
        return found
    refuse_word_rows(table, columns)
    if hints.task in ("causal_lm", "masked_lm"):
        texts, doubts = choose_texts(table, columns, hints._replace(label=None), (), has_header)
        return Guess(hints.task, texts[-1:], doubts=tuple(doubts))
    ranked = rank_labels(columns, hints)
    is_hinted = hints.label is not None or hints.texts != ()
    flags = flag_columns(columns, ranked) if hints.task in (None, "multi_label") else ()
    if flags and not is_hinted:
        texts, doubts = choose_texts(table, columns, hints, flags, has_header)
        told = f"{len(flags)} columns of 0 and 1 are taken for a class each"
        one = {"task": "classification", "data.label_columns": (), "data.label_column": flags[0]}
        return Guess("multi_label", texts, flags, "", (*doubts, Doubt(told, one)))
    label, doubts = choose_label(table, ranked, hints)
    if label is None:
        return _unlabelled(table, columns, hints, has_header)
    texts, more = choose_texts(table, columns, hints, (label.name,), has_header)
    size = num_rows(table)
    task, doubt = task_of(label, size) if hints.task is None else (hints.task, None)
    if hints.task is None:
        doubts = [with_task(d, columns, task, size) for d in doubts]
    separator = label.separator if task == "multi_label" else ""
    all_doubts = (*doubts, *([doubt] if doubt else []), *more)
    return Guess(task, texts, (label.name,), separator, all_doubts)


def _unlabelled(table: Table, columns: Sequence[Column], hints: Hints, has_header: bool) -> Guess:
    """A table without labels: a language model of its texts."""
    texts, doubts = choose_texts(table, columns, hints, (), has_header)
    task = hints.task or "masked_lm"
    if len(columns) > 1:
        refused = [
            f"{column.name!r} ({_why_no_label(column)})"
            for column in columns
            if column.name not in texts and column.kind not in ("empty",)
        ][:_SHOWN]
        listed = f": not {', '.join(refused)}" if refused else ""
        told = f"no column looks like labels{listed}; so a language model learns the texts"
        doubts = [
            Doubt(told, {"task": "classification", "data.label_column": "NAME"}),
            *doubts,
        ]
    return Guess(task, texts[-1:], doubts=tuple(doubts))


def _why_no_label(column: Column) -> str:
    why = {
        **{"id": "a different value in each row", "constant": "one value in all rows"},
        **{"text": "texts", "name": "hardly any value twice", "date": "dates", "link": "links"},
        **{"answers": "answers", "image": "images", "file": "names of images", "words": "words"},
    }
    return column.note or why.get(column.kind, "no plain values")
