"""SQuAD files and tables of questions: what is taken, what is refused, and with which words."""

import json
import re

import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources.files import read_file
from jaxtune.data.sources.rows import read_data
from jaxtune.data.sources.table import Table, concatenate, take
from jaxtune.data.text import squad
from jaxtune.data.text.squad import Answer, Question
from jaxtune.settings.data import ColumnSettings, DataSettings, SourceSettings
from jaxtune.settings.dicts import from_dict

CONTEXT = "The Thames flows through London, Oxford and Reading."


def qa(name, answers=(("London", 25),), **fields):
    pairs = [{"text": text, "answer_start": start} for text, start in answers]
    return {"question": f"Where, {name}?", "id": name, "answers": pairs} | fields


def article(*paragraphs, title="Rivers"):
    return {
        "title": title,
        "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs],
    }


def write(path, *articles, version="v2.0", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"version": version, "data": list(articles)}, **options)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def published(tmp_path):
    """Two articles, three paragraphs, four questions, one of them impossible."""
    impossible = qa("d", (), is_impossible=True, plausible_answers=[{"text": "x"}])
    return write(
        tmp_path / "train-v2.0.json",
        article(
            (CONTEXT, [qa("a"), qa("b", (("Oxford", 33), ("London", 25)))]), ("Ä b", [impossible])
        ),
        article(("One word.", [qa("c", (("word", 4),), is_impossible=False)]), title="Words"),
        ensure_ascii=False,
    )


def table(answers, question="Where?", context=CONTEXT, source="dir/train.jsonl", **columns):
    """A table of one question, on line 7."""
    found = {"question": [question], "context": [context], "answers": [answers]}
    return Table(found | {n: [v] for n, v in columns.items()}, source, [7], {})


def rows_of(found, **fields):
    return squad.rows(found, ColumnSettings(**fields), ())


# --- The files --------------------------------------------------------------------------------


def test_a_squad_file_is_a_table_with_the_columns_of_the_hub(published):
    found = read_file(str(published), required=("question", "context"))
    assert found.columns == {
        "id": ["a", "b", "d", "c"],
        "title": ["Rivers", "Rivers", "Rivers", "Words"],
        "context": [CONTEXT, CONTEXT, "Ä b", "One word."],
        "question": ["Where, a?", "Where, b?", "Where, d?", "Where, c?"],
        "answers": [
            {"text": ["London"], "answer_start": [25]},
            {"text": ["Oxford", "London"], "answer_start": [33, 25]},
            {"text": [], "answer_start": []},
            {"text": ["word"], "answer_start": [4]},
        ],
    }
    assert found.rows == [1, 1, 1, 1]
    assert found.source == str(published)


def test_rows_are_the_lines_on_which_the_ids_stand(tmp_path):
    answer = {"id": "b", "text": "London", "answer_start": 25}  # MLQA's answers have ids too
    first = {"question": 'An "id": "b"?', "id": "a\u00e9", "answers": [answer]}
    path = write(
        tmp_path / "dev.json",
        article((CONTEXT, [first, qa("b"), qa("c")])),
        indent=1,
        version="1.1",
    )
    found = read_file(str(path))
    lines = path.read_text().split("\n")
    assert found.columns["id"] == ["aé", "b", "c"]
    for name, line in zip(["a\\u00e9", "b", "c"], found.rows, strict=True):
        assert lines[line - 1].strip().startswith(f'"id": "{name}"')
    assert len(set(found.rows)) == 3


def test_answers_that_are_withheld_are_none(tmp_path):
    hidden = {"question": "Who?", "id": "x"}
    impossible = {"question": "Who?", "id": "y", "is_impossible": True}
    path = write(tmp_path / "test.json", article((CONTEXT, [hidden, impossible])))
    assert read_file(str(path)).columns["answers"] == [None, {"text": [], "answer_start": []}]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('[{"data": [1]}, {"data": [2]}]', {"data": [[1], [2]]}),
        ('{"data": [{"text": "x"}]}', {"data": [[{"text": "x"}]]}),
        ('{"data": []}\n{"data": 3}', {"data": [[], 3]}),
        ('{"data": [{"title": "x"}]}\n{"data": 3}', {"data": [[{"title": "x"}], 3]}),
        ('{"paragraphs": [1]}', {"paragraphs": [[1]]}),
    ],
)
def test_other_json_files_are_read_as_before(tmp_path, text, columns):
    path = tmp_path / "rows.json"
    path.write_text(text)
    assert read_file(str(path)).columns == columns


@pytest.mark.parametrize("cut", [-1, 200])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_damaged_file_is_named_with_its_line(tmp_path, cut, indent):
    path = write(tmp_path / "train.json", article((CONTEXT, [qa("a"), qa("b")])), indent=indent)
    text = path.read_text()[:cut]
    path.write_text(text)
    with pytest.raises(
        UserError, match=r"train\.json line (\d+): found text that is not JSON"
    ) as e:
        read_file(str(path))
    line = int(re.search(r"line (\d+)", str(e.value))[1])
    assert line == 1 if indent is None else 1 < line <= text.count("\n") + 1
    assert "SQuAD" in str(e.value)


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda a: without(a, "paragraphs"), ["article 2:", "paragraphs, a list", "title"]),
        (lambda a: "text", ["article 2:", "a JSON str"]),
        (lambda a: a | {"paragraphs": 3}, ["article 2:", "'3'"]),
        (lambda a: a | {"paragraphs": [{"qas": []}]}, ["paragraph 1:", "context, a text"]),
        (lambda a: a | {"paragraphs": [{"context": "x"}]}, ["paragraph 1:", "qas, a list"]),
        (lambda a: article((3, [])), ["paragraph 1:", "context"]),
        (lambda a: article((CONTEXT, [qa("z"), 5])), ["question 2:", "a JSON int"]),
        (lambda a: article((CONTEXT, [without(qa("z"), "id")])), ["question 1:", "id, a text"]),
        (lambda a: article((CONTEXT, [without(qa("z"), "question")])), ["question 'z':"]),
        (lambda a: article((CONTEXT, [qa("z", answers=())  | {"answers": "London"}])), ["'z'"]),
        (lambda a: article((CONTEXT, [qa("z") | {"answers": [{"text": "x"}]}])), ["answer_start"]),
        (lambda a: article((CONTEXT, [qa("z", ((3, 4),))])), ["'z' answers", "text, a text"]),
        (lambda a: article((CONTEXT, [qa("z", (("a", "4"),))])), ["'z' answers", "whole number"]),
        (lambda a: article((CONTEXT, [qa("z", is_impossible=True)])), ["'z'", "is_impossible"]),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named_with_its_place(tmp_path, change, parts):
    good = article((CONTEXT, [qa("a")]))
    path = write(tmp_path / "train.json", good, change(good))
    with pytest.raises(UserError) as caught:
        read_file(str(path))
    for part in [f"{path} article 2", "found", "expected", *parts]:
        assert part in str(caught.value)


# --- The rows ---------------------------------------------------------------------------------


def test_rows_of_a_file(published):
    columns = ColumnSettings()
    found = squad.rows(squad.load(SourceSettings(str(published)), columns)["train"], columns, ())
    assert found.inputs[1] == Question("b", "Where, b?", CONTEXT, True)
    assert found.labels == [
        (Answer("London", 25),),
        (Answer("Oxford", 33), Answer("London", 25)),
        (),
        (Answer("word", 4),),
    ]
    assert found.keys == [CONTEXT, CONTEXT, "Ä b", "One word."]


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Oxford", "London"], "answer_start": [33, 25]},
        [{"text": "Oxford", "answer_start": 33}, {"text": "London", "answer_start": 25}],
        '{"text": ["Oxford", "London"], "answer_start": [33, 25]}',
        '[{"text": "Oxford", "answer_start": 33}, {"text": "London", "answer_start": 25}]',
        {"text": ["Oxford", " ", "London"], "answer_start": [33, 0, 25]},
    ],
)
def test_forms_of_answers(answers):
    assert rows_of(table(answers)).labels == [(Answer("Oxford", 33), Answer("London", 25))]


@pytest.mark.parametrize(
    "answers", [{"text": [], "answer_start": []}, [], "[]", {"text": [""], "answer_start": [-1]}]
)
def test_forms_of_no_answer(answers):
    assert rows_of(table(answers)).labels == [()]


def test_columns_of_other_names():
    other = Table(
        {"q": ["Where?"], "passage": [CONTEXT], "found": [[{"text": "The", "answer_start": 0}]]},
        "a.jsonl", [3], {},
    )  # fmt: skip
    found = rows_of(other, text_columns=("q", "passage"), label_column="found")
    assert found.inputs == [Question("3", "Where?", CONTEXT)]  # the line, without ids
    assert found.labels == [(Answer("The", 0),)]
    with pytest.raises(UserError, match=r"text_columns is passage: expected two names"):
        rows_of(other, text_columns=("passage",))
    with pytest.raises(UserError, match=r"a\.jsonl.*'answers'"):
        rows_of(other, text_columns=("q", "passage"))


@pytest.mark.parametrize("off", [0, 1, -1, 5, -5])
def test_an_answer_a_few_characters_off_is_taken_where_it_stands(off):
    assert rows_of(table([{"text": "London", "answer_start": 25 + off}])).labels == [
        (Answer("London", 25),)
    ]


def test_the_nearest_of_several_places_counts():
    found = rows_of(table([{"text": "ab", "answer_start": 5}], context="ab.ab..ab"))
    assert found.labels == [(Answer("ab", 3),)]


def test_white_space_around_an_answer_is_not_part_of_it():
    found = rows_of(table([{"text": " London, ", "answer_start": 24}]))
    assert found.labels == [(Answer("London,", 25),)]


def test_starts_count_characters_and_not_bytes():
    context = "Ünïcödé 🙂🙂 👩‍🚀 answer"
    start = context.index("answer")
    assert len(context.encode()) > len(context)
    found = rows_of(table([{"text": "answer", "answer_start": start}], context=context))
    assert found.labels == [(Answer("answer", start),)]


@pytest.mark.parametrize(
    ("text", "start"),
    [("London", 31), ("London", 19), ("Paris", 25), ("London", -90), ("London", 999)],
)
def test_an_answer_that_does_not_stand_there(text, start):
    with pytest.raises(UserError) as caught:
        rows_of(table([{"text": text, "answer_start": start}], id="q17"))
    for part in ("dir/train.jsonl line 7", "'q17'", f"'{text}'", f"answer_start {start}", "has '"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "answers",
    [
        None, "London", 25, "", {}, {"text": ["London"]}, {"text": "London", "answer_start": 25},
        {"text": ["London"], "answer_start": []}, {"text": ["London"], "answer_start": ["25"]},
        {"text": ["London"], "answer_start": [25.0]}, {"text": [7], "answer_start": [25]},
        ["London"], [{"text": "London"}], {"text": ["London"], "answer_start": [True]},
    ],
)  # fmt: skip
def test_malformed_answers(answers):
    with pytest.raises(UserError) as caught:
        rows_of(table(answers, id="q17"))
    for part in ("dir/train.jsonl line 7", "'q17'", "'answers'", "answer_start", "label_column"):
        assert part in str(caught.value)


@pytest.mark.parametrize("column", ["question", "context"])
@pytest.mark.parametrize("value", ["", "  ", None, 3])
def test_a_blank_text(column, value):
    with pytest.raises(UserError, match=rf"dir/train\.jsonl line 7: found .*'{column}'"):
        rows_of(table([], **{column: value}))


# --- The splits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, None], False),
        ([[], {"text": [], "answer_start": []}], False),
        (["", None], False),
        ([None, [{"text": "London", "answer_start": 25}]], True),
        ([3, None], True),  # malformed, so that reading it names the row
    ],
)
def test_a_test_set_without_any_answer_withholds_them(values, expected):
    tables = [table(value) for value in values]
    assert squad.has_labels(concatenate(tables, "all"), ColumnSettings()) is expected


def test_no_answers_column_is_no_labels():
    bare = table([])
    del bare.columns["answers"]
    assert not squad.has_labels(bare, ColumnSettings())


@pytest.mark.parametrize(
    ("train", "dev", "expected"), [(True, False, True), (False, True, False), (False, False, False)]
)
def test_the_training_data_say_whether_a_question_may_lack_an_answer(
    tmp_path, train, dev, expected
):
    folder = tmp_path / "squad"
    for name, impossible in (("train-v2.0.json", train), ("dev-v2.0.json", dev)):
        more = [qa("z", (), is_impossible=True)] if impossible else []
        write(folder / name, article((f"{CONTEXT} {name}", [qa("a"), *more])))
    data = read_data(from_dict(DataSettings, {"path": str(folder)}), squad.QUESTIONS)
    assert set(data.splits) == {"train", "validation"}
    for rows in data.splits.values():
        assert [question.may_lack_answer for question in rows.inputs] == [expected] * len(
            rows.inputs
        )
    assert data.class_names == ()
    settings = squad.resolve(from_dict(DataSettings, {"max_length": 99}), data.splits["train"])
    assert settings == from_dict(DataSettings, {"max_length": 99, "allow_no_answer": expected})
    for chosen in (True, False):
        settings = from_dict(DataSettings, {"allow_no_answer": chosen})
        assert squad.resolve(settings, data.splits["train"]) == settings


def test_questions_on_one_context_stay_on_one_side(tmp_path):
    paragraphs = [(f"{CONTEXT} {p}", [qa(f"{p}-{i}") for i in range(p % 4 + 1)]) for p in range(40)]
    path = write(tmp_path / "all.json", article(*paragraphs))
    settings = from_dict(
        DataSettings, {"path": str(path), "validation_size": 0.2, "test_size": 0.2}
    )
    data = read_data(settings, squad.QUESTIONS)
    sides = [{question.context for question in rows.inputs} for rows in data.splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40
    assert sum(len(rows.inputs) for rows in data.splits.values()) == 100
    for rows in data.splits.values():
        assert [q.id.split("-")[0] for q in rows.inputs] == [k.split()[-1] for k in rows.keys]
        assert len(rows.labels) == len(rows.inputs)
    assert not any("also in train" in note for note in data.notes)


def test_shared_contexts_are_noted(tmp_path):
    for name in ("train", "dev"):
        write(tmp_path / "d" / f"{name}.json", article((CONTEXT, [qa(name), qa(f"{name}2")])))
    data = read_data(from_dict(DataSettings, {"path": str(tmp_path / "d")}), squad.QUESTIONS)
    assert data.notes == ["2 of 2 validation questions' contexts are also in train"]


# --- New questions ----------------------------------------------------------------------------


def test_read_new_takes_squad_files_and_tables(published, tmp_path, write_csv):
    found = squad.read_new(published, (), "utf-8")
    assert found.labels is None
    assert found.inputs[2] == Question("d", "Where, d?", "Ä b")
    path = write_csv(tmp_path / "new.csv", [("Who?", "Me."), ("Why?", "So.")], ("q", "c"))
    found = squad.read_new(path, ("q", "c"), "utf-8")
    assert found.inputs == [Question("2", "Who?", "Me."), Question("3", "Why?", "So.")]
    assert found.keys == ["Me.", "So."]


@pytest.mark.parametrize("columns", [(), ("text",)])  # the card has the settings' default
def test_read_new_without_the_columns(tmp_path, write_csv, columns):
    path = write_csv(tmp_path / "new.csv", [("Who?", "Me.")], ("question", "passage"))
    with pytest.raises(UserError, match=r"new\.csv.*'context'"):
        squad.read_new(path, columns, "utf-8")
    with pytest.raises(UserError, match="is a folder"):
        squad.read_new(tmp_path, columns, "utf-8")


def test_a_parquet_file_of_the_hub(tmp_path):
    datasets = pytest.importorskip("datasets")
    answers = [{"text": ["London"], "answer_start": [25]}, {"text": [], "answer_start": []}]
    columns = {"id": ["a", "b"], "title": ["t", "t"], "context": [CONTEXT] * 2}
    columns |= {"question": ["Where?", "Who?"], "answers": answers}
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_dict(columns).to_parquet(path)
    columns = ColumnSettings()
    loaded = squad.load(SourceSettings(str(path)), columns)["train"]
    assert squad.rows(loaded, columns, ()).labels == [(Answer("London", 25),), ()]
    assert squad.rows(take(loaded, [0]), columns, ()).inputs == [
        Question("a", "Where?", CONTEXT, True)
    ]


# --- Answers whose offsets are off --------------------------------------------------------------


def many(*answers):
    """A table of one question a row; each answer is (context, text, answer_start)."""
    contexts, texts, starts = zip(*answers, strict=True)
    columns = {
        "id": [f"q{i}" for i in range(len(answers))],
        "question": ["Where?"] * len(answers),
        "context": list(contexts),
        "answers": [{"text": [t], "answer_start": [s]} for t, s in zip(texts, starts, strict=True)],
    }
    return Table(columns, "dir/train.json", range(1, 1 + len(answers)), {})


def utf16_start(context, text):
    """Where a text begins, as JavaScript and Java count."""
    return len(context[: context.index(text)].encode("utf-16-le")) // 2


def test_moved_answers_are_counted_and_named():
    right, wrong = (CONTEXT, "London", 25), (CONTEXT, "London", 27)
    assert rows_of(many(right, right)).notes == ()
    (note,) = rows_of(many(right, *[wrong] * 7)).notes
    assert note.startswith("7 of 8 answers do not stand at their answer_start")
    assert "'q1' ('London' from 27 to 25)" in note
    assert note.endswith("and 2 more")
    assert rows_of(table([{"text": " London", "answer_start": 24}])).notes == ()


def test_starts_in_utf16_units_are_known_where_all_answers_agree():
    context = "\U0001f600 a cat, \U0001f680 a cat, a dog \U0001f600 and a cat"
    starts = [m.start() for m in re.finditer("a cat", context)]
    units = [len(context[:s].encode("utf-16-le")) // 2 for s in starts]
    found = rows_of(many((CONTEXT, "London", 25), *[(context, "a cat", u) for u in units]))
    assert [answers[0].start for answers in found.labels] == [25, *starts]
    assert found.notes == ("answer_start counts UTF-16 units here, by which all answers agree",)
    assert utf16_start(context, "a dog") == context.index("a dog") + 2


def test_starts_in_characters_stay_where_one_answer_stands_by_them_alone():
    context = "\U0001f600 a cat"
    by_units, by_characters = (context, "a cat", 3), (context, "a cat", 2)
    for rows in ([by_characters] * 2, [by_units, by_characters]):
        found = rows_of(many(*rows))
        assert [answers[0].start for answers in found.labels] == [2, 2]
        assert not any("UTF-16" in note for note in found.notes)
