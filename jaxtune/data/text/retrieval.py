"""A retrieval test: documents, queries, and which documents answer each, in the layout of BEIR.

A folder has `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and
`qrels/SPLIT.tsv` (`query-id`, `corpus-id`, `score`).

Source: Thakur et al. 2021, BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of Information
Retrieval Models.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.sources.files import read_file
from jaxtune.data.sources.table import Table, where
from jaxtune.data.text.labels import is_blank, number_of, shown
from jaxtune.data.text.new_values import BLANK

_CORPUS, _QUERIES, _JUDGED = "corpus.jsonl", "queries.jsonl", "qrels"


class Retrieval(NamedTuple):
    """What is to be found.

    Attributes:
      documents: text by id; behind its title, where it has one.
      queries: text by id, of those that are judged.
      judged: of each query, the grade of the documents that somebody has looked at; those above 0
        are relevant.
      source: the folder, for messages.
    """

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    judged: Mapping[str, Mapping[str, int]]
    source: str


def is_retrieval(folder: Path) -> bool:
    """Whether a folder has the files of a retrieval test."""
    return (folder / _CORPUS).is_file() and (folder / _QUERIES).is_file()


def read_retrieval(folder: Path, split: str = "test") -> Retrieval:
    """Reads and checks a retrieval test.

    Args:
      folder: with the files.
      split: of the judgements; where there is one file of them, it is taken whatever its name.

    Raises:
      UserError: a file that is missing or malformed, an id twice or nowhere, or a grade that is no
        whole number; names the file and the line.
    """
    documents = _texts(folder / _CORPUS, titled=True)
    queries = _texts(folder / _QUERIES, titled=False)
    file = _judgements(folder, split)
    table = read_file(str(file), required=("query-id", "corpus-id", "score"))
    judged: dict[str, dict[str, int]] = {}
    columns = (table.columns[name] for name in ("query-id", "corpus-id", "score"))
    for i, (query, document, grade) in enumerate(zip(*columns, strict=True)):
        query, document, number = str(query), str(document), number_of(grade)
        for known, name, place in (
            (queries, query, _QUERIES),
            (documents, document, _CORPUS),
        ):
            if name not in known:
                raise UserError(f"{where(table, i)}: {name[:80]!r} is no _id of {place}.")
        if not abs(number) < 2**31 or number != int(number):
            raise UserError(
                f"{where(table, i)}: found the score {shown(grade)}, expected a whole number."
            )
        judged.setdefault(query, {})[document] = int(number)
    own = {name: queries[name] for name in judged}
    return Retrieval(documents, own, judged, str(folder))


def _judgements(folder: Path, split: str) -> Path:
    files = sorted((folder / _JUDGED).glob("*.tsv"))
    named = [file for file in files if file.stem == split]
    if not named and len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(
            f"{folder / _JUDGED} has the files {found}: expected {split}.tsv, or one alone."
        )
    return (named or files)[0]


def _texts(file: Path, titled: bool) -> dict[str, str]:
    """Texts by their ids."""
    table = read_file(str(file), required=("_id", "text"))
    titles: Sequence[Any] = table.columns.get("title", ()) if titled else ()
    found: dict[str, str] = {}
    for i, (name, text) in enumerate(zip(table.columns["_id"], table.columns["text"], strict=True)):
        name = _id(table, i, name)
        if name in found:
            raise UserError(f"{where(table, i)}: the _id {name[:80]!r} is there twice.")
        parts = (titles[i], text) if titles else (text,)
        for part in parts:
            if not is_blank(part) and not isinstance(part, str):
                raise UserError(f"{where(table, i)}: found {shown(part)}, expected a text.")
        found[name] = " ".join(part.strip() for part in parts if not is_blank(part)) or BLANK
    return found


def _id(table: Table, i: int, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UserError(f"{where(table, i)}: the _id is {shown(value)}, expected a name.")
    return str(value)
