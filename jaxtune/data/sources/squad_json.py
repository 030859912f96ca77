"""SQuAD's own JSON, versions 1.1 and 2.0, as a table with the columns of the hub's `squad`."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.data.sources.table import Table

COLUMNS = ("id", "title", "context", "question", "answers")

_OPENING = re.compile(
    r'\s*\{\s*("version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[\s*\{\s*"(title|paragraphs)"'
)
"""How the published files begin: such a text is meant to be SQuAD even where it is damaged."""

_ID = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


def squad_table(path: str, text: str) -> Table | None:
    """One row for each question of a SQuAD file.

    Args:
      path: the file, for messages.
      text: its content.

    Returns:
      The columns `id`, `title`, `context`, `question` and `answers`, which holds
      {"text": [...], "answer_start": [...]}: empty lists for a question that is impossible, None
      where the file withholds answers. None where the text is no object with a list `data` of
      articles with paragraphs.

    Raises:
      UserError: a SQuAD file that is malformed; names the article, the paragraph and the question.
    """
    if not text.lstrip().startswith("{"):
        return None
    try:
        articles = _articles(json.loads(text))
    except RecursionError:
        return None  # whoever reads its lines says so
    except json.JSONDecodeError as error:
        if '"qas"' not in text or not _OPENING.match(text):
            return None
        raise UserError(
            f"{path} line {error.lineno}: found text that is not JSON ({error.msg}), but expected"
            " one SQuAD object to the end of the file. Fetch the file again."
        ) from error
    if articles is None:
        return None
    rows = list(_questions(path, articles))
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return Table(columns, path, _lines(text, columns["id"]), {})


def _articles(value: Any) -> list[Any] | None:
    articles = value.get("data") if isinstance(value, dict) else None
    if not isinstance(articles, list):
        return None
    # Other files have a list `data` too, of rows.
    known = any(isinstance(article, dict) and "paragraphs" in article for article in articles)
    return articles if known else None


def _questions(path: str, articles: list[Any]) -> Iterator[dict[str, Any]]:
    for a, article in enumerate(articles, start=1):
        place = f"{path} article {a}"
        for p, paragraph in enumerate(_field(article, "paragraphs", list, place), start=1):
            inner = f"{place} paragraph {p}"
            context = _field(paragraph, "context", str, inner)
            for q, qa in enumerate(_field(paragraph, "qas", list, inner), start=1):
                name = _field(qa, "id", str | int, f"{inner} question {q}")
                where = f"{inner} question {name!r}"
                yield {
                    "id": name,
                    "title": article.get("title"),
                    "context": context,
                    "question": _field(qa, "question", str, where),
                    "answers": _answers(qa, where),
                }


def _answers(qa: dict[str, Any], where: str) -> dict[str, list[Any]] | None:
    impossible = qa.get("is_impossible", False)
    if "answers" not in qa and not impossible:
        return None
    answers = _field({"answers": []} | qa, "answers", list, where)
    if answers and impossible:
        raise UserError(
            f"{where}: found is_impossible and {len(answers)} answers, but expected one or the"
            " other. Correct the file."
        )
    return {
        "text": [_field(answer, "text", str, f"{where} answers") for answer in answers],
        "answer_start": [
            _field(answer, "answer_start", int, f"{where} answers") for answer in answers
        ],
    }


def _field(record: Any, name: str, kind: Any, place: str) -> Any:
    """A field of a record of the file, which must be there and of its kind."""
    if not isinstance(record, dict):
        found = f"a JSON {type(record).__name__}"
    elif name not in record:
        found = f"the fields {', '.join(record) or 'none'}"
    elif isinstance(record[name], kind):
        return record[name]
    else:
        found = f"{name} {str(record[name])[:40]!r}"
    words = {list: "a list", str: "a text", int: "a whole number", str | int: "a text"}
    raise UserError(
        f"{place}: found {found}, but expected an object with {name}, {words[kind]}, as SQuAD has"
        " it. Correct the file."
    )


def _lines(text: str, ids: Sequence[Any]) -> list[int]:
    """The 1-based line on which each question's `id` stands, which a parser does not tell."""
    places = ((json.loads(match[1]), match.start()) for match in _ID.finditer(text))
    lines, line, seen = [], 1, 0
    for name in ids:
        # Ids of articles and answers stand between those of questions.
        position = next((place for found, place in places if found == name), seen)
        line, seen = line + text.count("\n", seen, position), position
        lines.append(line)
    return lines
