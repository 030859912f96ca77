"""The rows that a model was most sure of and wrong on, with their texts or images."""

from collections.abc import Sequence
from typing import Any

from jaxtune.reporting.class_rows import name
from jaxtune.reporting.parts import Example, Section, number
from jaxtune.run.predictions_folder import Kept

_WORDS = 10  # of a sentence that are named


def section(kept: Kept, names: Sequence[str], title: str, note: str) -> Section | None:
    """The worst rows; None where there are none.

    Args:
      kept: with the worst rows.
      names: of the classes.
      title: what they are.
      note: by what they were chosen.
    """
    if not kept.rows:
        return None
    examples = [_example(i, row, kept, names) for i, row in enumerate(kept.rows, 1)]
    return Section(title, [note], examples=examples)


def _example(rank: int, row: Any, kept: Kept, names: Sequence[str]) -> Example:
    where = row.get("file") or (f"row or line {row['place']:,}" if "place" in row else None)
    title = f"{rank}. {where or _nth(row, kept)}"
    texts = [(str(label), str(text)) for label, text in row.get("texts", ())]
    return Example(title, _facts(row, kept.task, names), texts, row.get("image", ""))


def _facts(row: Any, task: str, names: Sequence[str]) -> list[tuple[str, str]]:
    if task in ("classification", "few_shot", "image_classification"):
        said = f"{name(names, row['said'][0])} ({row['probability']:.3f})"
        right = f"{name(names, row['right'][0])} ({row['right_probability']:.3f})"
        return [("predicted", said), ("right", right)]
    if task == "multi_label":
        said, right = (_listed(names, row[part]) for part in ("said", "right"))
        worst = f"{name(names, row['worst'])} ({row['probability']:.3f})"
        return [("predicted", said), ("right", right), ("surest error", worst)]
    if task == "regression":
        told = (", ".join(number(x) for x in row[part]) for part in ("said", "right"))
        return [*zip(("predicted", "target"), told, strict=True)]
    if task == "token_classification":
        told = [f"{word}: {said}, not {right}" for word, right, said in row["wrong"]]
        more = [f"and {len(told) - _WORDS} more"] if len(told) > _WORDS else []
        wrong = "; ".join([*told[:_WORDS], *more])
        return [("wrong words, as predicted", wrong)]
    if task == "question_answering":
        right = " | ".join(row["right"]) or "(no answer)"
        said = f"{row['said'] or '(no answer)'} ({row['probability']:.3f})"
        return [("answer", said), ("right", right), ("F1", number(row["f1"], 3))]
    return [("loss a token", number(row["loss"], 3)), ("scored tokens", f"{row['tokens']:,}")]


def _listed(names: Sequence[str], places: Sequence[int]) -> str:
    return ", ".join(name(names, place) for place in places) or "(none)"


def _nth(row: Any, kept: Kept) -> str:
    return f"{kept.split} example {row['index'] + 1:,}"
