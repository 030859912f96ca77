"""Which columns are read and which are learnt, and so the task; what is not sure is told."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.look import names
from jaxtune.data.look.columns import Column, items_of
from jaxtune.data.sources.table import Table, num_rows

_KIND_SCORES: Mapping[str, float] = {
    **{"class": 1.5, "list": 1.5, "hot": 1.5, "joined": 1.2, "flag": 1.2, "number": 0.6},
}
"""Of columns that may be labels."""

_SURE = 0.6  # of `names.rank`: the whole name is known
_CLOSE = 2.0  # of scores: both may be meant
_FEW_GRADES = 10
_SHOWN = 3  # alternatives in a doubt


class Doubt(NamedTuple):
    """What may be meant otherwise.

    Attributes:
      told: what was chosen, and why another choice may be right.
      lines: settings -> values of the other choice.
    """

    told: str
    lines: Mapping[str, Any] = {}


class Guess(NamedTuple):
    """What is read and what is learnt.

    Attributes:
      task: as `config.task` has it.
      texts: the columns that are read: one or two; one of images.
      labels: the columns that are learnt: none, one, or one for each class or target.
      separator: between classes in a field; empty where there is none.
      doubts: what may be meant otherwise.
    """

    task: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    separator: str = ""
    doubts: tuple[Doubt, ...] = ()


class Hints(NamedTuple):
    """What a person said; None and () where nothing."""

    task: str | None = None
    texts: tuple[str, ...] = ()
    label: str | None = None


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
    found = _nested(table, columns, hints)
    if found is not None:
        return found
    _refuse_word_rows(table, columns)
    if hints.task in ("causal_lm", "masked_lm"):
        texts, doubts = _texts(table, columns, hints._replace(label=None), (), has_header)
        return Guess(hints.task, texts[-1:], doubts=tuple(doubts))
    ranked = _rank_labels(columns, hints)
    is_hinted = hints.label is not None or hints.texts != ()
    flags = _flag_columns(columns, ranked) if hints.task in (None, "multi_label") else ()
    if flags and not is_hinted:
        texts, doubts = _texts(table, columns, hints, flags, has_header)
        told = f"{len(flags)} columns of 0 and 1 are taken for a class each"
        one = {"task": "classification", "data.label_columns": (), "data.label_column": flags[0]}
        return Guess("multi_label", texts, flags, "", (*doubts, Doubt(told, one)))
    label, doubts = _label(table, ranked, hints)
    if label is None:
        return _unlabelled(table, columns, hints, has_header)
    texts, more = _texts(table, columns, hints, (label.name,), has_header)
    task, doubt = _task(label) if hints.task is None else (hints.task, None)
    separator = label.separator if task == "multi_label" else ""
    all_doubts = (*doubts, *([doubt] if doubt else []), *more)
    return Guess(task, texts, (label.name,), separator, all_doubts)


# --- Lists, answers and images --------------------------------------------------------------


def _nested(table: Table, columns: Sequence[Column], hints: Hints) -> Guess | None:
    """Of tables whose values say it all; None for others."""
    kinds = {column.name: column.kind for column in columns}
    answers = [name for name, kind in kinds.items() if kind == "answers"]
    if answers and hints.task in (None, "question_answering"):
        texts = [column for column in columns if column.kind == "text"]
        pair = names.pair_of(list(kinds))
        if pair is None and len(texts) >= 2:
            by_length = sorted(texts, key=lambda column: column.words)
            pair = (by_length[0].name, by_length[-1].name)
        if hints.texts or pair:
            return Guess("question_answering", hints.texts or pair or (), (answers[0],))
    images = [name for name, kind in kinds.items() if kind in ("image", "file")]
    if images and not _has_texts(columns) and hints.task in (None, "image_classification"):
        label, doubts = _label(table, _rank_labels(columns, hints), hints)
        if label is not None:
            name = next(iter(hints.texts), images[0])
            return Guess("image_classification", (name,), (label.name,), "", tuple(doubts))
    return _tagged(table, columns, hints)


def _has_texts(columns: Sequence[Column]) -> bool:
    return any(column.kind == "text" for column in columns)


def _tagged(table: Table, columns: Sequence[Column], hints: Hints) -> Guess | None:
    """Lists of words beside lists of as many tags."""
    if hints.task not in (None, "token_classification"):
        return None
    lists = [c for c in columns if c.kind in ("words", "list") and c.name in table.columns]
    lists = [c for c in lists if isinstance(table.columns[c.name][0], list)]
    words = max(lists, key=lambda column: column.distinct, default=None)
    if words is None:
        return None
    sizes = [len(items_of(value) or ()) for value in table.columns[words.name][:1000]]
    tags = [
        column
        for column in lists
        if column is not words
        and [len(items_of(value) or ()) for value in table.columns[column.name][:1000]] == sizes
    ]
    if not tags or max(sizes) < 2:
        return None
    tags.sort(key=lambda column: -names.rank(column.name, names.LABELS))
    named = [column.name for column in tags]
    label = hints.label or named[0]
    others = [name for name in named if name != label]
    doubt = [Doubt(f"the tags are those of {label!r}", {"data.label_column": others[0]})]
    return Guess(
        "token_classification",
        (words.name,),
        (label,),
        doubts=tuple(doubt if others and hints.label is None else ()),
    )


def _refuse_word_rows(table: Table, columns: Sequence[Column]) -> None:
    """Refuses a table of one word a row."""
    spelled = {names.spell(column.name): column for column in columns}
    word = next((spelled[key] for key in ("word", "token") if key in spelled), None)
    tag = next((spelled[key] for key in ("tag", "ner_tag", "ner", "label") if key in spelled), None)
    if word is not None and tag is not None and word.words < 1.2 and not _has_texts(columns):
        raise UserError(
            f"{table.source}: found one word a row, in the column {word.name!r} with its tag in"
            f" {tag.name!r}, but expected whole sentences. Write it as a .conll file: a word a"
            " line, a tab, its tag, and a blank line after each sentence."
        )


# --- Labels ---------------------------------------------------------------------------------


def _rank_labels(columns: Sequence[Column], hints: Hints) -> list[tuple[float, Column]]:
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
        score += {len(columns) - 1: 0.8, 0: 0.4}.get(place, 0.0)
        if are_alike and column.kind == "number" and not column.whole:
            score += 2.0  # how alike two texts are is such a number
        scored.append((score, column))
    return sorted(scored, key=lambda entry: -entry[0])


def _flag_columns(
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


def _label(
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


def _task(label: Column) -> tuple[str, Doubt | None]:
    """The task that a column of labels is learnt by."""
    words, name = {*names.words_of(label.name)}, label.name
    if label.kind in ("list", "hot"):
        return "multi_label", None
    if label.kind == "joined":
        told = f"the fields of {name!r} look like several classes with {label.separator!r} between"
        return "multi_label", Doubt(told, {"task": "classification"})
    regress, classify = {"task": "regression"}, {"task": "classification"}
    count = label.distinct
    if label.kind == "number":
        if label.whole and words & names.CLASSES:
            told = f"the {count} whole numbers of {name!r} are taken for classes"
            return "classification", Doubt(told, regress)
        if words & names.MEASURES and count > _FEW_GRADES:
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


def _unlabelled(table: Table, columns: Sequence[Column], hints: Hints, has_header: bool) -> Guess:
    """A table without labels: a language model of its texts."""
    texts, doubts = _texts(table, columns, hints, (), has_header)
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


# --- Texts ----------------------------------------------------------------------------------


def _texts(
    table: Table,
    columns: Sequence[Column],
    hints: Hints,
    labels: Sequence[str],
    has_header: bool,
) -> tuple[tuple[str, ...], list[Doubt]]:
    """The columns that are read, and which other ones may be meant."""
    if hints.texts:
        return hints.texts, []
    free = [column for column in columns if column.name not in labels]
    found = sorted((c for c in free if c.kind == "text"), key=_text_score, reverse=True)
    short = [c for c in free if c.kind in ("name", "class", "joined") and not c.whole]
    if not found:
        short.sort(key=_text_score, reverse=True)
        if not short:
            listed = ", ".join(f"{c.name!r} ({c.kind})" for c in columns[:10])
            raise UserError(
                f"{table.source}: found no column of texts among {listed}. Name it with"
                " --text_columns=NAME."
            )
        return (short[0].name,), [Doubt(f"the texts of {short[0].name!r} are very short")]
    pair = names.pair_of([column.name for column in free if column.kind == "text"])
    if pair is None and len(found) == 2 and not has_header:
        first, second = (c.name for c in columns if c in found)
        pair = (first, second)
    if pair is not None and found[0].name in pair:
        if not has_header or names.spell(pair[0]) in names.WHOLE:
            one = {"data.text_columns": (pair[1],)}
            return pair, [Doubt(f"{pair[0]!r} and {pair[1]!r} are read together", one)]
        return pair, []
    best, others = found[0], found[1:]
    if not others:
        return (best.name,), []
    told = f"the texts are those of {best.name!r} alone; texts too: "
    told += ", ".join(repr(column.name) for column in others[:_SHOWN])
    return (best.name,), [Doubt(told, {"data.text_columns": (best.name, others[0].name)})]


def _text_score(column: Column) -> float:
    """How likely a column is the one that is read."""
    score = 10 * names.rank(column.name, names.TEXTS) + min(column.words, 60.0) / 10
    return score - 5 * (names.is_other(column.name) and not names.rank(column.name, names.TEXTS))
