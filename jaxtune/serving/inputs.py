"""What a request asks about, JSON values or files that were sent, as rows of the model's task."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.images import images
from jaxtune.data.images.decode import Source
from jaxtune.data.sources.bad_rows import no_text
from jaxtune.data.sources.rows import Rows
from jaxtune.data.sources.table import Table, bad_row
from jaxtune.data.text import choice_tables
from jaxtune.models.choice import CHOICE
from jaxtune.run.predictions import own_columns
from jaxtune.run.saved import SavedModel
from jaxtune.tasks.reranking import RERANKING
from jaxtune.tasks.task import Task

Kind = Literal["texts", "pairs", "words", "questions", "choices", "images"]
"""What the inputs of a model are."""


class Upload(NamedTuple):
    """A file that was sent.

    Attributes:
      name: as the client calls it; nothing of that name is opened.
      data: its bytes.
    """

    name: str
    data: bytes


class Asked(NamedTuple):
    """What the inputs of a model are.

    Attributes:
      kind: of the inputs.
      columns: what the model was trained on, the names under which its inputs come.
      may_be_pairs: whether single texts may be pairs as well, as nothing says what it was.
    """

    kind: Kind
    columns: tuple[str, ...]
    may_be_pairs: bool


_HEADS: Mapping[str, Kind] = {
    **{"image": "images", "token": "words", "span": "questions", CHOICE: "choices"}
}
_COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "texts": ("text",),
    "pairs": ("text", "text_pair"),
    "words": ("text",),
    "questions": ("question", "context"),
    "choices": choice_tables.PLAIN,
    "images": ("image",),
}


def asked_of(saved: SavedModel) -> Asked:
    """What the inputs of a saved model are."""
    own = tuple(own_columns(saved.task, saved.card))
    if saved.task.name == RERANKING.name:
        return Asked("pairs", own or ("query", "passage"), False)
    kind: Kind = _HEADS.get(saved.task.head, "pairs" if len(own) == 2 else "texts")
    if kind == "choices":
        own = choice_tables.PLAIN
    is_known = len(own) == len(_COLUMNS[kind])
    columns = own if is_known else _COLUMNS[kind]
    return Asked(kind, columns, kind == "texts" and not is_known)


def read_inputs(task: Task, asked: Asked, inputs: Sequence[Any]) -> Rows:
    """The rows of a request, one for each input.

    Args:
      task: of the model.
      asked: what its inputs are.
      inputs: JSON values or `Upload`, at least one.

    Raises:
      UserError: names the input, from 1, and what is wrong with it.
    """
    place = Table({}, "inputs", range(1, 1 + len(inputs)), {}, unit="row")
    for i, value in enumerate(inputs):
        wrong = None if isinstance(value, Upload) else no_text(value)
        if wrong:
            raise bad_row(place, i, wrong)
    if asked.kind == "images":
        values = [_image(place, i, value, asked) for i, value in enumerate(inputs)]
        table = place._replace(columns={asked.columns[0]: values})
        return images.read_new(table, asked.columns, check_all=_check_all)
    found = [_READERS[asked.kind](place, i, value, asked) for i, value in enumerate(inputs)]
    width = len(found[0])
    for i, values in enumerate(found):
        if len(values) != width:
            kinds = ("a single text", "a pair of texts")
            raise bad_row(
                place,
                i,
                f"found {kinds[len(values) - 1]}, but expected {kinds[width - 1]} as row 1 is. Send"
                " them in requests of their own.",
            )
    columns = asked.columns if width == len(asked.columns) else _COLUMNS["pairs"]
    named = dict(zip(columns, map(list, zip(*found, strict=True)), strict=True))
    if asked.kind == "questions":
        named["id"] = [_id(place, i, value) for i, value in enumerate(inputs)]
    return task.data.read_new(place._replace(columns=named), columns, "utf-8")


Read = Callable[[Table, int, Any, Asked], tuple[Any, ...]]
"""(where inputs stand, index of one, its value, what is asked for) -> the values of its columns."""


def _texts(place: Table, i: int, value: Any, asked: Asked) -> tuple[Any, ...]:
    """One text or two."""
    generic = _COLUMNS["pairs"]
    if isinstance(value, str):
        values: tuple[Any, ...] = (value,)
    elif isinstance(value, list) and len(value) == 2:
        values = tuple(value)
    elif isinstance(value, dict) and all(name in value for name in asked.columns):
        values = tuple(value[name] for name in asked.columns)
        if asked.may_be_pairs and generic[1] in value:
            values = tuple(value[name] for name in generic)
    elif isinstance(value, dict) and generic[0] in value:
        values = tuple(value[name] for name in generic if name in value)
    else:
        values = ()
    fits = len(values) == len(asked.columns) or (values and asked.may_be_pairs)
    if fits and all(text is None or isinstance(text, str) for text in values):
        return values
    if asked.kind == "pairs":
        names = " and ".join(map(repr, asked.columns))
        expected = f"two texts, as a list or under the names {names}"
    else:
        pairs = ", or a list of two" if asked.may_be_pairs else ""
        expected = f"a text, or a mapping that has one under the name {asked.columns[0]!r}{pairs}"
    raise bad_row(place, i, f"found {_shown(value)}, but expected {expected}.")


def _words(place: Table, i: int, value: Any, asked: Asked) -> tuple[Any, ...]:
    """A text, or its words."""
    names = (asked.columns[0], "text", "tokens")
    if isinstance(value, dict):
        value = next((value[name] for name in names if name in value), value)
    is_words = isinstance(value, list) and all(isinstance(word, str) for word in value)
    if value is None or isinstance(value, str) or is_words:
        return (value,)
    raise bad_row(
        place,
        i,
        f"found {_shown(value)}, but expected a text, a list of its words, or a mapping that has"
        f" one of these under the name {names[0]!r}.",
    )


def _questions(place: Table, i: int, value: Any, asked: Asked) -> tuple[Any, ...]:
    """A question and its context."""
    if isinstance(value, dict):
        for names in (asked.columns, _COLUMNS["questions"]):
            values = tuple(value.get(name) for name in names)
            if names[0] in value and names[1] in value and all(map(_is_text, values)):
                return values
    names = " and ".join(map(repr, asked.columns))
    raise bad_row(
        place,
        i,
        f"found {_shown(value)}, but expected a mapping with texts under the names {names}.",
    )


def _choices(place: Table, i: int, value: Any, asked: Asked) -> tuple[Any, ...]:
    """A prompt, and its choices."""
    row = dict(zip(asked.columns, value, strict=False)) if isinstance(value, list) else value
    try:
        pairs = choice_tables.pairs_of(row if isinstance(row, dict) else {})
    except UserError:
        names = " and ".join(map(repr, asked.columns))
        raise bad_row(
            place,
            i,
            f"found {_shown(value)}, but expected a mapping with a text and a list of two texts or"
            f" more under the names {names}.",
        ) from None
    return pairs[0][0], [text for _, text in pairs]


_READERS: Mapping[Kind, Read] = {
    "texts": _texts,
    "pairs": _texts,
    "words": _words,
    "questions": _questions,
    "choices": _choices,
}


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _id(place: Table, i: int, value: Any) -> Any:
    """The id of a question; None where it has none."""
    found = value.get("id")
    if found is None or type(found) in (str, int):
        return found
    raise bad_row(place, i, f"found the id {_shown(found)}, but expected a text or a whole number.")


def _image(place: Table, i: int, value: Any, asked: Asked) -> dict[str, Any]:
    """The bytes of an image, under the name that it was sent with; no file is opened."""
    if isinstance(value, Upload):
        return {"bytes": value.data, "path": value.name}
    name = None
    if isinstance(value, dict):
        name = value.get("file") if isinstance(value.get("file"), str) else None
        value = next((value[key] for key in (asked.columns[0], "image") if key in value), value)
    try:
        if isinstance(value, str) and value.strip():
            text = value.partition(",")[2] if value.startswith("data:") else value
            return {"bytes": base64.b64decode(text, validate=True), "path": name}
    except (binascii.Error, ValueError):
        pass
    raise bad_row(
        place,
        i,
        f"found {_shown(value)}, but expected the bytes of an image in base64, such as those of a"
        " JPEG or PNG file.",
    )


def _check_all(sources: Sequence[Source]) -> list[bytes]:
    """Nothing: images are decoded once, when the batch's pixels are made of them."""
    return [b"" for _ in sources]


def _shown(value: Any) -> str:
    """A value, for a message."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, Upload):
        return f"the file {value.name[:60]!r}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        names = ", ".join(repr(str(name)[:30]) for name in list(value)[:5])
        return f"a mapping with the names {names or 'none'}"
    return repr(value)[:60]
