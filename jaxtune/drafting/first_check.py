"""A first config is read as a run reads it, and what lets it be read is added."""

import random
from collections.abc import Sequence

from jaxtune.core.errors import UserError
from jaxtune.data.images import images
from jaxtune.data.look.guesses import Guess
from jaxtune.data.sources.rows import Data, Rows, read_data
from jaxtune.data.sources.table import num_rows, take
from jaxtune.drafting.config_draft import Line, settings_in
from jaxtune.tasks.registry import find_task

_IMAGES_CHECKED = 64
_SPLIT_SIZES = {"data.validation_size": "validation", "data.test_size": "test"}


def checked(lines: Sequence[Line], chosen: Guess) -> tuple[list[Line], Data]:
    """The lines with what lets a run read the data, and the data as it reads it.

    Raises:
      UserError: nothing does.
    """
    if chosen.task == "image_classification":
        return _checked_images(lines)
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


def _checked_images(lines: Sequence[Line]) -> tuple[list[Line], Data]:
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
