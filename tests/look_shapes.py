"""Small files as people have them, and what a person would say of each."""

# ruff: noqa: RUF012
import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_NOUNS = "service room coffee battery screen driver ticket flight story plot cook hotel".split()  # noqa: SIM905
_VERBS = "was broke arrived stopped felt worked lasted surprised annoyed pleased".split()  # noqa: SIM905
_MORE = "again late yesterday quickly for us in the end without reason at all this week".split()  # noqa: SIM905


class Shape(NamedTuple):
    """A file, and what it holds.

    Attributes:
      file: its name.
      content: of it.
      task: that a person would choose.
      texts: columns that are read.
      labels: columns that are learnt.
      doubted: whether another choice is to be told.
      settings: further ones that the config must have.
    """

    file: str
    content: bytes
    task: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    doubted: bool = False
    settings: dict[str, Any] = {}


def sentence(rng: random.Random, words: int = 9) -> str:
    parts = [rng.choice(_NOUNS), rng.choice(_VERBS), *rng.choices(_NOUNS + _MORE, k=words)]
    return f"The {' '.join(parts)}."


def rows(count: int, *makes: Callable[[random.Random, int], Any]) -> list[list[Any]]:
    rng = random.Random(7)
    return [[make(rng, i) for make in makes] for i in range(count)]


def text(rng, i):
    return sentence(rng, rng.randint(6, 20))


def title(rng, i):
    return sentence(rng, 2)


def body(rng, i):
    return " ".join(sentence(rng, 10) for _ in range(3))


def one_of(*values):
    return lambda rng, i: values[i % len(values)] if i < len(values) else rng.choice(values)


def score(rng, i):
    return f"{rng.uniform(0, 5):.2f}"


def number(rng, i):
    return i + 1


def code(rng, i):
    return f"{rng.getrandbits(40):010x}"


def date(rng, i):
    return f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def link(rng, i):
    return f"https://example.org/{rng.getrandbits(30)}"


def some_of(*values):
    return lambda rng, i: rng.sample(values, rng.randint(1, min(3, len(values))))


def table(header: Sequence[str] | None, *makes: Any, count: int = 60, **options: Any) -> bytes:
    stream = io.StringIO(newline="")
    encoding = options.pop("encoding", "utf-8")
    writer = csv.writer(stream, **{"lineterminator": "\n"} | options)
    if header is not None:
        writer.writerow(header)
    writer.writerows(rows(count, *makes))
    return stream.getvalue().encode(encoding)


def records(names: Sequence[str], *makes: Any, count: int = 60) -> bytes:
    made = [dict(zip(names, row, strict=True)) for row in rows(count, *makes)]
    return "\n".join(map(json.dumps, made)).encode()


def joined(*values, by="|"):
    return lambda rng, i: by.join(rng.sample(values, rng.randint(1, min(3, len(values)))))


def as_json(make):
    return lambda rng, i: json.dumps(make(rng, i))


def hot(rng, i):
    return [int(rng.random() < 0.4) for _ in range(6)]


def conll(separator: str = "\t") -> bytes:
    rng, lines = random.Random(7), []
    for _ in range(40):
        for word in sentence(rng).split():
            tag = "B-LOC" if word in ("hotel", "room") else "O"
            lines.append(f"{word}{separator}{tag}")
        lines.append("")
    return "\n".join(lines).encode()


def words(rng, i):
    return sentence(random.Random(i)).split()


def tags(rng, i):
    return ["B-LOC" if word in ("hotel", "room") else "O" for word in words(rng, i)]


def poses(rng, i):
    return ["NOUN" if word in _NOUNS else "X" for word in words(rng, i)]


def squad() -> bytes:
    rng = random.Random(7)
    paragraphs = []
    for i in range(30):
        context = sentence(rng, 12)
        word = context.split()[3]
        answer = {"text": word, "answer_start": context.index(f" {word}") + 1}
        question = {"id": str(i), "question": f"What {word} was it then?", "answers": [answer]}
        paragraphs.append({"context": context, "qas": [question]})
    return json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}).encode()


def context(rng, i):
    return sentence(random.Random(i), 15)


def answers(rng, i):
    found = context(rng, i)
    return {"text": [found.split()[2]], "answer_start": [found.index(f" {found.split()[2]}") + 1]}


POS_NEG = one_of("positive", "negative")
NEWS = one_of("sport", "politics", "business", "science")

SHAPES = {
    "label": Shape(
        "a.csv", table(["text", "label"], text, POS_NEG), "classification", ("text",), ("label",)
    ),
    "category": Shape(
        "a.csv",
        table(["headline", "category"], title, NEWS),
        "classification",
        ("headline",),
        ("category",),
    ),
    "target of 0 and 1, with an id": Shape(
        "train.csv",
        table(
            ["id", "keyword", "location", "text", "target"],
            number,
            one_of("fire", "flood"),
            one_of("", "USA", "London", "Paris"),
            text,
            one_of(0, 1),
        ),
        "classification",
        ("text",),
        ("target",),
    ),
    "sentiment before the text, with dates and links": Shape(
        "tweets.csv",
        table(["sentiment", "date", "url", "user", "tweet"], POS_NEG, date, link, code, text),
        "classification",
        ("tweet",),
        ("sentiment",),
    ),
    "stars from 1 to 5": Shape(
        "r.csv",
        table(["review", "stars"], text, one_of(1, 2, 3, 4, 5)),
        "classification",
        ("review",),
        ("stars",),
        True,
    ),
    "ratings of half stars": Shape(
        "r.csv",
        table(["review", "rating"], text, one_of(0.5, 1.0, 1.5, 2.0, 2.5, 3.0)),
        "regression",
        ("review",),
        ("rating",),
        True,
    ),
    "scores": Shape(
        "s.csv", table(["text", "score"], text, score), "regression", ("text",), ("score",)
    ),
    "whole numbers from 0 to 100": Shape(
        "s.csv",
        table(["text", "score"], text, lambda r, i: r.randint(0, 100), count=200),
        "regression",
        ("text",),
        ("score",),
    ),
    "yes and no": Shape(
        "q.csv",
        table(["comment", "spam"], text, one_of("yes", "no")),
        "classification",
        ("comment",),
        ("spam",),
    ),
    "true and false in json": Shape(
        "b.jsonl",
        records(["question", "passage", "answer"], title, body, one_of(True, False)),
        "classification",
        ("question", "passage"),
        ("answer",),
    ),
    "columns of 0 and 1": Shape(
        "toxic.csv",
        table(
            ["id", "comment_text", "toxic", "severe_toxic", "obscene", "threat"],
            code,
            text,
            *[lambda r, i: int(r.random() < 0.3)] * 4,
        ),
        "multi_label",
        ("comment_text",),
        ("toxic", "severe_toxic", "obscene", "threat"),
        True,
    ),
    "a label, and another column of 0 and 1": Shape(
        "v.csv",
        table(["text", "verified", "label"], text, one_of(0, 1), NEWS),
        "classification",
        ("text",),
        ("label",),
    ),
    "labels joined by bars": Shape(
        "m.csv",
        table(["plot", "genres"], text, joined("drama", "comedy", "war", "crime")),
        "multi_label",
        ("plot",),
        ("genres",),
        True,
    ),
    "labels joined by commas": Shape(
        "m.csv",
        table(["plot", "genre"], text, joined("drama", "comedy", "war", by=", ")),
        "multi_label",
        ("plot",),
        ("genre",),
        True,
        {"label_separator": ","},
    ),
    "lists of names": Shape(
        "m.jsonl",
        records(["text", "labels"], text, some_of("joy", "fear", "anger")),
        "multi_label",
        ("text",),
        ("labels",),
    ),
    "lists of names as json in csv": Shape(
        "m.csv",
        table(["text", "emotions"], text, as_json(some_of("joy", "fear", "anger"))),
        "multi_label",
        ("text",),
        ("emotions",),
    ),
    "lists of 0 and 1": Shape(
        "m.jsonl", records(["text", "labels"], text, hot), "multi_label", ("text",), ("labels",)
    ),
    "a class with a slash, one with a comma": Shape(
        "c.csv",
        table(["text", "topic"], text, one_of("Sci/Tech", "Food, Drinks", "World", "Sport")),
        "classification",
        ("text",),
        ("topic",),
    ),
    "title, body and category": Shape(
        "n.csv",
        table(["id", "title", "body", "category"], number, title, body, NEWS),
        "classification",
        ("title", "body"),
        ("category",),
        True,
    ),
    "premise and hypothesis": Shape(
        "nli.tsv",
        table(
            ["premise", "hypothesis", "label"],
            text,
            title,
            one_of("entailment", "neutral", "contradiction"),
            delimiter="\t",
        ),
        "classification",
        ("premise", "hypothesis"),
        ("label",),
    ),
    "two questions and whether they are one": Shape(
        "qqp.csv",
        table(
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            number,
            number,
            number,
            text,
            text,
            one_of(0, 1),
        ),
        "classification",
        ("question1", "question2"),
        ("is_duplicate",),
    ),
    "two sentences and a score": Shape(
        "sts.tsv",
        table(
            ["genre", "year", "score", "sentence1", "sentence2"],
            one_of("news", "forum"),
            one_of(2012, 2013, 2014),
            score,
            text,
            text,
            delimiter="\t",
        ),
        "regression",
        ("sentence1", "sentence2"),
        ("score",),
        True,
    ),
    "two sentences and a score, without a header": Shape(
        "sts.csv",
        table(None, one_of("news", "forum"), one_of("MSR", "WMT", "QA"), score, text, text),
        "regression",
        ("text1", "text2"),
        ("label",),
        True,
        {"column_names": ("column_1", "column_2", "label", "text1", "text2")},
    ),
    "a question and an answer, right or not": Shape(
        "qa.csv",
        table(["question", "answer", "label"], text, text, one_of(0, 1)),
        "classification",
        ("question", "answer"),
        ("label",),
    ),
    "no header, label first": Shape(
        "sms.tsv",
        table(None, one_of("ham", "spam"), text, delimiter="\t"),
        "classification",
        ("text",),
        ("label",),
        True,
        {"column_names": ("label", "text")},
    ),
    "no header, no suffix": Shape(
        "SMSCollection",
        table(None, one_of("ham", "spam"), text, delimiter="\t"),
        "classification",
        ("text",),
        ("label",),
        True,
        {"format": "tsv"},
    ),
    "no header, a class by number and two texts": Shape(
        "ag.csv",
        table(None, one_of(1, 2, 3, 4), title, body, quoting=csv.QUOTE_ALL),
        "classification",
        ("text1", "text2"),
        ("label",),
        True,
    ),
    "many classes by number": Shape(
        "i.csv",
        table(["text", "intent"], text, lambda r, i: i % 30, count=300),
        "classification",
        ("text",),
        ("intent",),
    ),
    "classes by number and by name": Shape(
        "e.jsonl",
        records(
            ["text", "label", "label_text"],
            text,
            lambda r, i: i % 3,
            lambda r, i: ("joy", "fear", "anger")[i % 3],
        ),
        "classification",
        ("text",),
        ("label_text",),
        True,
    ),
    "the index of pandas": Shape(
        "p.csv",
        table(["", "text", "label"], number, text, POS_NEG),
        "classification",
        ("text",),
        ("label",),
    ),
    "a label that differs in each row": Shape(
        "l.csv", table(["text", "label"], text, code), "masked_lm", ("text",), (), True
    ),
    "texts alone": Shape("t.csv", table(["text"], text), "masked_lm", ("text",)),
    "a text a line": Shape(
        "t.txt",
        "\n".join(sentence(random.Random(i)) for i in range(50)).encode(),
        "masked_lm",
        ("text",),
    ),
    "a text a line, with commas": Shape(
        "t.txt",
        "\n".join(f"Well, {sentence(random.Random(i))}" for i in range(50)).encode(),
        "masked_lm",
        ("text",),
    ),
    "words and tags": Shape("ner.conll", conll(), "token_classification", ("words",), ("tags",)),
    "words and tags in .txt, by blanks": Shape(
        "ner.txt", conll(" "), "token_classification", ("words",), ("tags",)
    ),
    "lists of words and of tags": Shape(
        "ner.jsonl",
        records(["id", "tokens", "pos_tags", "ner_tags"], number, words, poses, tags),
        "token_classification",
        ("tokens",),
        ("ner_tags",),
        True,
    ),
    "squad": Shape(
        "squad.json", squad(), "question_answering", ("question", "context"), ("answers",)
    ),
    "questions with answers in json lines": Shape(
        "qa.jsonl",
        records(["id", "question", "context", "answers"], code, title, context, answers),
        "question_answering",
        ("question", "context"),
        ("answers",),
    ),
    "semicolons, latin-1 and blanks in the header": Shape(
        "k.csv",
        table(
            ["Kommentar ", " Stimmung"],
            lambda r, i: f"Schöne {sentence(r)}",
            one_of("gut", "schlecht"),
            delimiter=";",
            encoding="latin-1",
        ),
        "classification",
        ("Kommentar ",),
        (" Stimmung",),
        False,
        {"encoding": "latin-1"},
    ),
    "a byte order mark and tabs in .csv": Shape(
        "e.csv",
        b"\xef\xbb\xbf"
        + table(["text", "label"], text, POS_NEG, delimiter="\t", lineterminator="\r\n"),
        "classification",
        ("text",),
        ("label",),
    ),
    "line ends in quotes": Shape(
        "l.csv",
        table(
            ["review", "label"],
            lambda r, i: f'{sentence(r)}\n\n"Well," {sentence(r)}',
            POS_NEG,
            lineterminator="\r\n",
        ),
        "classification",
        ("review",),
        ("label",),
    ),
    "utf-16, as spreadsheets save it": Shape(
        "u.csv",
        table(["text", "label"], text, POS_NEG, delimiter="\t", encoding="utf-16"),
        "classification",
        ("text",),
        ("label",),
        False,
        {"encoding": "utf-16"},
    ),
    "quotes in .tsv": Shape(
        "q.tsv",
        table(
            ["text", "label"], lambda r, i: f"{sentence(r)}\n{sentence(r)}", POS_NEG, delimiter="\t"
        ),
        "classification",
        ("text",),
        ("label",),
        False,
        {"format": "csv"},
    ),
    "empty texts and labels": Shape(
        "g.csv",
        table(
            ["text", "label"],
            lambda r, i: "" if i == 9 else text(r, i),
            lambda r, i: "" if i == 20 else POS_NEG(r, i),
        ),
        "classification",
        ("text",),
        ("label",),
        False,
        {"on_bad_row": "skip"},
    ),
    "more classes than a tenth of the rows": Shape(
        "b.csv",
        table(["query", "intent"], text, lambda r, i: f"intent {i % 18}"),
        "classification",
        ("query",),
        ("intent",),
        False,
        {"validation_size": 0.3},
    ),
    "columns that are no labels beside one that has no name for it": Shape(
        "x.csv",
        table(
            ["created_at", "author", "verified", "message", "abteilung", "country"],
            date,
            code,
            one_of(0, 1),
            text,
            one_of("Technik", "Verkauf", "Lager"),
            one_of("DE", "AT", "CH"),
        ),
        "classification",
        ("message",),
        ("abteilung",),
        True,
    ),
    "three texts": Shape(
        "w.csv",
        table(["review_text", "reply", "remarks", "label"], body, text, text, POS_NEG),
        "classification",
        ("review_text",),
        ("label",),
        True,
    ),
    "an array of objects": Shape(
        "a.json",
        json.dumps([{"text": t, "class": c} for t, c in rows(50, text, NEWS)]).encode(),
        "classification",
        ("text",),
        ("class",),
    ),
    "Chinese": Shape(
        "z.csv",
        table(
            ["text", "label"],
            lambda r, i: "".join(r.choices("我你他很好不是天气今明", k=18)),
            POS_NEG,
        ),
        "classification",
        ("text",),
        ("label",),
    ),
    "columns without a name after the last one": Shape(
        "spam.csv",
        table(["v1", "v2", "", "", ""], one_of("ham", "spam"), text, *[one_of("")] * 3),
        "classification",
        ("v2",),
        ("v1",),
        True,
    ),
    "a ticket": Shape(
        "tickets.csv",
        table(
            ["Ticket ID", "Customer Email", "Subject", "Description", "Status", "Department"],
            number,
            lambda r, i: f"{code(r, i)}@x.org",
            title,
            body,
            one_of("open", "closed"),
            one_of("IT", "HR", "Sales"),
        ),
        "classification",
        ("Subject", "Description"),
        ("Department",),
        True,
    ),
    "stars as amazon has them, an index and a time": Shape(
        "amazon.csv",
        table(
            ["asin", "overall", "reviewText", "unixReviewTime"],
            code,
            one_of("5.0", "4.0", "3.0", "1.0"),
            body,
            lambda r, i: 1388534400 + 86400 * i,
        ),
        "classification",
        ("reviewText",),
        ("overall",),
        True,
    ),
    "0 and 1 behind a source, no header": Shape(
        "cola.tsv",
        table(None, one_of("gj04", "bc01"), one_of(0, 1), one_of("", "*"), text, delimiter="\t"),
        "classification",
        ("text",),
        ("label",),
        True,
        {"column_names": ("column_1", "label", "column_3", "text")},
    ),
}
