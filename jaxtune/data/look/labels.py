"""Which column is learnt, and by which task."""

from collections.abc import Mapping, Sequence

from jaxtune.data.look import names
from jaxtune.data.look.columns import Column
from jaxtune.data.look.guesses import Doubt, Hints
from jaxtune.data.sources.table import Table

_KIND_SCORES: Mapping[str, float] = {
    **{"class": 1.5, "list": 1.5, "hot": 1.5, "joined": 1.2, "flag": 1.6, "number": 0.6},
}
"""Of columns that may be labels."""

_SURE = 0.6  # of `names.rank`: the whole name is known
_CLOSE = 2.0  # of scores: both may be meant
_FEW_GRADES = 10
_SHOWN = 3  # alternatives in a doubt


def rank_labels(columns: Sequence[Column], hints: Hints) -> list[tuple[float, Column]]:
    """The columns that may be labels with their scores, the likeliest first."""
    texts = [column for column in columns if column.kind == "text"]
    are_alike = len(texts) == 2 and max(c.words for c in texts) < 2 * min(c.words for c in texts)
    scored = []
    for place, column in enumerate(columns):
        if column.kind not in _KIND_SCORES or column.name in hints.texts:
            continue
        is_number = column.whole or column.kind in ("number", "flag")
        if hints.task == "regression" and not is_number:
            continue
        score = 10 * names.rank(column.name, names.LABELS) + _KIND_SCORES[column.kind]
        score -= 4 * names.is_other(column.name)
        score += {len(columns) - 1: 0.8}.get(place, 0.0)
        if are_alike and column.kind == "number" and not column.whole:
            score += 2.0  # how alike two texts are is such a number
        scored.append((score, column))
    return sorted(scored, key=lambda entry: -entry[0])


def flag_columns(
    columns: Sequence[Column], ranked: Sequence[tuple[float, Column]]
) -> tuple[str, ...]:
    """Columns of 0 and 1 for a class each; () where they are not that."""
    flags = [c for _, c in ranked if c.kind == "flag" and not names.is_other(c.name)]
    others = [c for _, c in ranked if c not in flags and names.rank(c.name, names.LABELS) > 0.5]
    named = [c for c in flags if names.spell(c.name) in names.CLASSES]
    known = [c for c in flags if names.rank(c.name, names.LABELS) > 0]
    if others or named or len(flags) < 2 or (len(flags) == 2 and known):
        return ()
    return tuple(column.name for column in columns if column in flags)


def choose_label(
    table: Table, ranked: Sequence[tuple[float, Column]], hints: Hints
) -> tuple[Column | None, list[Doubt]]:
    """The column that is learnt, and which other ones may be meant."""
    if hints.label is not None:
        known = [column for _, column in ranked if column.name == hints.label]
        return (known[0] if known else Column(hints.label, "class")), []
    if not ranked:
        return None, []
    best, label = ranked[0]
    spelled = _spelled_out(table, label, [column for _, column in ranked[1:]])
    if spelled is not None:
        told = f"{spelled.name!r} and {label.name!r} say the same; the labels are the words"
        return spelled, [Doubt(told, {"data.label_column": label.name})]
    others = [c for score, c in ranked[1:] if best - score < _CLOSE and score > 0][:_SHOWN]
    told = f"the labels are taken from {label.name!r}"
    if not names.rank(label.name, names.LABELS):
        told += ", by its values alone"
    elif not others:
        return label, []
    if not others:
        return label, [Doubt(told)]
    listed = ", ".join(repr(column.name) for column in others)
    return label, [Doubt(f"{told}; {listed} may be meant", {"data.label_column": others[0].name})]


def _spelled_out(table: Table, label: Column, others: Sequence[Column]) -> Column | None:
    """The column that has a word for each number of the label's."""
    if label.kind not in ("class", "flag") or table.class_names.get(label.name):
        return None
    values = list(map(str, table.columns[label.name]))
    if not all(value.strip().lstrip("-").isdigit() for value in {*values}):
        return None
    for other in others:
        if other.kind != "class" or other.whole or other.distinct != label.distinct:
            continue
        if len({*zip(values, map(str, table.columns[other.name]), strict=True)}) == label.distinct:
            return other
    return None


def with_task(doubt: Doubt, columns: Sequence[Column], task: str, size: int) -> Doubt:
    """The doubt with the task of the column that may be meant, where that is another one."""
    found = [c for c in columns if c.name == doubt.lines.get("data.label_column")]
    other = task_of(found[0], size)[0] if found else task
    if other == task:
        return doubt
    more = {"data.label_separator": found[0].separator} if found[0].separator else {}
    return doubt._replace(lines={"task": other, **doubt.lines, **more})


def task_of(label: Column, size: int) -> tuple[str, Doubt | None]:
    """The task that a column of labels of so many rows is learnt by."""
    words, name = {*names.words_of(label.name)}, label.name
    if label.kind in ("list", "hot"):
        return "multi_label", None
    if label.kind == "joined":
        told = f"the fields of {name!r} look like several classes with {label.separator!r} between"
        whole = {"task": "classification"} if 10 * label.distinct <= size else {}
        return "multi_label", Doubt(told, whole)
    regress, classify = {"task": "regression"}, {"task": "classification"}
    count = label.distinct
    if label.kind == "number":
        if label.whole and words & names.CLASSES:
            told = f"the {count} whole numbers of {name!r} are taken for classes"
            return "classification", Doubt(told, regress)
        if count > _FEW_GRADES and (words & names.MEASURES or not label.whole):
            return "regression", None
        told = f"the {count} different numbers of {name!r} are taken as measured"
        return "regression", Doubt(told, classify)
    if label.kind == "class" and label.whole:
        if words & names.GRADES and count <= _FEW_GRADES:
            told = (
                f"the {count} grades of {name!r} are taken for classes; regression learns their"
                " order too, and predicts numbers between them"
            )
            return "classification", Doubt(told, regress)
        if words & names.MEASURES - names.CLASSES:
            return "regression", Doubt(f"the numbers of {name!r} are taken as measured", classify)
        if count > 2 and not words & names.CLASSES:
            told = f"the {count} numbers of {name!r} are taken for classes"
            return "classification", Doubt(told, regress)
    return "classification", None
