"""How long texts are and how often classes occur, and the settings that follow."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from jaxtune.data.look.columns import count_words
from jaxtune.data.look.guesses import Guess
from jaxtune.data.sources.rows import Data, Rows
from jaxtune.drafting.config_draft import Line
from jaxtune.drafting.first_model import FirstModel

_SAMPLE = 2000  # texts that are measured
_LENGTHS = (128, 256, 384, 512)
_MOST_CUT = 0.05  # of the texts
_TOKENS_A_WORD = 1.4  # of English texts in the vocabularies of BERT and GPT-2, about
_MANY_UNKNOWN = 0.02  # of the tokens


def texts_of(data: Data, task: str) -> list[str]:
    """Some of the texts that are read, those of a pair as one."""
    inputs = data.splits["train"].inputs
    if task == "image_classification":
        return []
    sample = inputs[:: -(-len(inputs) // _SAMPLE)]
    if task == "token_classification":
        return [sentence.text for sentence in sample]
    if task == "question_answering":
        return [f"{row.question} {row.context}" for row in sample]
    return [row if isinstance(row, str) else " ".join(row) for row in sample]


def measure(
    texts: Sequence[str], model: FirstModel
) -> tuple[list[int], list[tuple[str, str]], list[str]]:
    """Tokens of each text, counted or guessed; facts and notes of them."""
    if not texts:
        return [], [], []
    words = sorted(map(count_words, texts))
    facts = [("words", _spread(words))]
    if model.tokenizer is None:
        return [int(_TOKENS_A_WORD * count) + 3 for count in words], facts, []
    encoded = model.tokenizer.encode(list(texts))
    lengths = sorted(len(item.ids) for item in encoded)
    facts.append(("tokens", _spread(lengths)))
    notes, total = [], sum(lengths)
    unknown = sum(item.ids.count(model.tokenizer.unk_token_id) for item in encoded)
    if unknown > _MANY_UNKNOWN * total:
        notes.append(
            f"{unknown / total:.1%} of the tokens are unknown to the model's vocabulary: is it of"
            " another language?"
        )
    return lengths, facts, notes


def _spread(ordered: Sequence[int]) -> str:
    """The least, the median, and the most of sorted numbers."""
    middle, far = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    return f"{ordered[0]} to {ordered[-1]}, half at most {middle}, 95% at most {far}"


def length_lines(task: str, lengths: Sequence[int], model: FirstModel) -> list[Line]:
    """`max_length`, so that few texts are cut."""
    limit = model.max_length or 0
    if task == "image_classification":
        return []
    if task == "question_answering":
        size = min(384, limit)
        why = "Longer contexts become windows; 384 and 128 are those of Devlin et al. 2019."
        return [
            Line("data.max_length", size, why),
            Line("data.doc_stride", min(128, size // 3)),
        ]
    if task in ("causal_lm", "masked_lm"):
        return [Line("data.max_length", min(512, limit), "Tokens of a block.")]
    sizes = [size for size in _LENGTHS if size <= limit] or [limit]
    shares = {size: sum(n > size for n in lengths) / len(lengths) for size in sizes}
    size = next((size for size in sizes if shares[size] <= _MOST_CUT), sizes[-1])
    how = "" if model.tokenizer is not None else "about "
    why = f"{how}{shares[size]:.1%} of the texts are longer and are cut"
    if size > sizes[0]:
        why += f"; at {sizes[0]}, which takes less time, {shares[sizes[0]]:.0%} would be"
    return [Line("data.max_length", size, f"{why[:1].upper()}{why[1:]}.")]


def class_lines(chosen: Guess, data: Data) -> tuple[list[Line], list[tuple[str, str]], list[str]]:
    """What follows from how often each class occurs; facts and notes."""
    rows = data.splits["train"]
    if chosen.task == "image_classification":
        counts = Counter(map(str, rows.labels))
    elif chosen.task == "multi_label":
        numbers = rows.labels.counts.tolist()
        counts = Counter(dict(zip(data.class_names, numbers, strict=True)))
    elif chosen.task == "classification":
        found = Counter(rows.labels.tolist())
        counts = Counter({name: found[i] for i, name in enumerate(data.class_names)})
    else:
        return [], _target_facts(chosen.task, data), []
    told = ", ".join(f"{name[:40]} {count}" for name, count in counts.most_common(8))
    more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
    facts = [("classes", f"{len(counts)} in train: {told}{more}")]
    largest, least = max(counts.values()), min(counts.values())
    lines = []
    if chosen.task in ("classification", "image_classification") and largest > 10 * max(least, 1):
        why = f"The largest class has {largest} rows, the smallest {least}: accuracy says little."
        lines.append(Line("train.best_metric", "macro_f1", why))
        why = "Rare classes count as much as frequent ones:"
        lines.append(Line("loss.class_weights", ("balanced",), why, is_set=False))
    notes = _conflicts(rows) if chosen.task == "classification" else []
    return lines, facts, notes


def _conflicts(rows: Rows) -> list[str]:
    """A note on equal texts of different classes, which no model can tell apart."""
    classes: dict[Any, set[int]] = {}
    for text, label in zip(rows.inputs, rows.labels.tolist(), strict=True):
        classes.setdefault(text, set()).add(label)
    count = sum(len(found) > 1 for found in classes.values())
    told = "1 text stands" if count == 1 else f"{count} texts stand"
    return [f"{told} there more than once, in different classes"] if count else []


def _target_facts(task: str, data: Data) -> list[tuple[str, str]]:
    rows = data.splits["train"]
    if task == "regression":
        low, mean, high = rows.labels.min(), rows.labels.mean(), rows.labels.max()
        return [("numbers", f"{low:g} to {high:g}, mean {mean:.4g}")]
    if task == "token_classification":
        return [("tags", f"{len(data.class_names)}: {', '.join(data.class_names[:12])}")]
    if task == "question_answering":
        none = sum(not answers for answers in rows.labels)
        return [("answers", f"{len(rows.labels) - none}, and {none} questions without one")]
    return []
