"""A first config for somebody's data: the look, the model, the recipe, checked as training does."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.images import images
from jaxtune.data.look.columns import Column, count_words, describe
from jaxtune.data.look.opening import Opened, open_source, rename
from jaxtune.data.look.roles import Doubt, Guess, Hints, guess
from jaxtune.data.sources import conll
from jaxtune.data.sources.rows import Data, Rows, read_data
from jaxtune.data.sources.table import Table, check_columns, num_rows, take
from jaxtune.run.config_draft import Line, Other, settings_in
from jaxtune.run.first_model import FirstModel, choose_model, is_causal
from jaxtune.run.recipe import recipe
from jaxtune.settings.data import DataSettings
from jaxtune.tasks.registry import find_task

_SAMPLE = 2000  # texts that are measured
_IMAGES_CHECKED = 64
_LENGTHS = (128, 256, 384, 512)
_MOST_CUT = 0.05  # of the texts
_TOKENS_A_WORD = 1.4  # of English texts in the vocabularies of BERT and GPT-2, about
_SPLIT_SIZES = {"data.validation_size": "validation", "data.test_size": "test"}
_MANY_UNKNOWN = 0.02  # of the tokens


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
    found: tuple[Opened, tuple[Column, ...], Guess], model: str | None, accelerated: bool
) -> Found:
    """The settings that train a model on the data, read and checked as a run does.

    Args:
      found: from `look`.
      model: a folder or a hub id; None for one that fits.
      accelerated: whether there is more than a CPU.

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
    lines, data = _checked(lines, opened, chosen)
    texts = _texts_of(data, chosen.task)
    first = choose_model(model, chosen.task, texts, accelerated)
    why = "" if model is not None else f"No model was named: {first.why}."
    lines[1] = Line("model.path", first.path, why)
    lengths, facts, notes = _lengths(data, chosen.task, texts, first)
    lines += _length_lines(chosen.task, lengths, first)
    rows = len(data.splits["train"].inputs)
    if chosen.task in ("causal_lm", "masked_lm"):
        block = next((ln.value for ln in lines if ln.setting == "data.max_length"), 128)
        rows = max(sum(lengths) * rows // max(len(lengths) * block, 1), 1)
    lines += [Line(*choice) for choice in recipe(chosen.task, first.size, rows)]
    more, class_facts, class_notes = _class_lines(chosen, data)
    lines += more
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


def _checked(lines: Sequence[Line], opened: Opened, chosen: Guess) -> tuple[list[Line], Data]:
    """The lines with what lets a run read the data, and the data as it reads it.

    Raises:
      UserError: nothing does.
    """
    if chosen.task == "image_classification":
        return _checked_images(lines, opened)
    remedies = [
        Line("data.on_bad_row", "skip", "Rows without a text or a label are left out."),
        Line("data.on_unknown_class", "wrong", "Classes that train has not count as errors."),
    ]
    lines, reader, first = list(lines), find_task(chosen.task).data.reader, None
    for share in (None, 0.2, 0.3, 0.5):
        if share is not None:
            lines = _with_share(lines, share)
        while True:
            try:
                data = read_data(settings_in(lines).data, reader)
                return _needed(lines, data), data
            except UserError as error:
                first = first or error
                if "Cannot hold out" in str(error):
                    break
                fitting = [r for r in remedies if r.setting == _remedy_of(str(error))]
                if not fitting:
                    raise first from None
                remedies.remove(fitting[0])
                lines.insert(3, fitting[0])
    raise first or AssertionError


def _remedy_of(message: str) -> str:
    unknown = "config.data.on_unknown_class=wrong" in message
    return "data.on_unknown_class" if unknown else "data.on_bad_row"


def _with_share(lines: Sequence[Line], share: float) -> list[Line]:
    why = "As many as give each class a row on either side."
    return [
        Line(line.setting, share, why) if line.setting == "data.validation_size" else line
        for line in lines
        if line.setting != "data.test_size"
    ]


def _needed(lines: Sequence[Line], data: Data) -> list[Line]:
    """Without the sizes of splits that the data brings."""
    held = {note.split(":")[0] for note in data.notes if "held out of train" in note}
    return [line for line in lines if _SPLIT_SIZES.get(line.setting) in (None, *held)]


def _checked_images(lines: Sequence[Line], opened: Opened) -> tuple[list[Line], Data]:
    """Some of the images are decoded, not all."""
    settings = settings_in(lines).data
    tables = images.CLASSES.load(settings.source, settings.columns)
    known = images.CLASSES.class_names(tables["train"], settings.columns)
    parts, notes = {}, []
    for split, table in tables.items():
        size = num_rows(table)
        picked = sorted(random.Random(0).sample(range(size), min(_IMAGES_CHECKED, size)))
        images.CLASSES.rows(take(table, picked), settings.columns, known)
        labels = table.columns[settings.columns.label_column]
        rows = Rows([None] * size, labels)
        parts[split] = rows
        notes += table.notes
    kept = [line for line in lines if _SPLIT_SIZES.get(line.setting) not in parts]
    return kept, Data(parts, known, None, notes)


# --- Lengths --------------------------------------------------------------------------------


def _texts_of(data: Data, task: str) -> list[str]:
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


def _lengths(
    data: Data, task: str, texts: Sequence[str], model: FirstModel
) -> tuple[list[int], list[tuple[str, str]], list[str]]:
    """Tokens of each text, counted or guessed; facts and notes of them."""
    del task
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


def _length_lines(task: str, lengths: Sequence[int], model: FirstModel) -> list[Line]:
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


# --- Classes --------------------------------------------------------------------------------


def _class_lines(chosen: Guess, data: Data) -> tuple[list[Line], list[tuple[str, str]], list[str]]:
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
    return lines, facts, []


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
