"""Which columns are read."""

from collections.abc import Sequence

from jaxtune.core.errors import UserError
from jaxtune.data.look import names
from jaxtune.data.look.columns import Column
from jaxtune.data.look.guesses import Doubt, Hints
from jaxtune.data.sources.table import Table

_SHOWN = 3  # alternatives in a doubt


def choose_texts(
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
