"""Tables whose values say what they are for: answers, images, lists of words and of tags."""

from collections.abc import Sequence

from jaxtune.core.errors import UserError
from jaxtune.data.look import names
from jaxtune.data.look.columns import Column, items_of
from jaxtune.data.look.guesses import Doubt, Guess, Hints
from jaxtune.data.look.labels import choose_label, rank_labels
from jaxtune.data.sources.table import Table


def guess_nested(table: Table, columns: Sequence[Column], hints: Hints) -> Guess | None:
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
        label, doubts = choose_label(table, rank_labels(columns, hints), hints)
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


def refuse_word_rows(table: Table, columns: Sequence[Column]) -> None:
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
