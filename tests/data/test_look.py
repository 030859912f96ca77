"""What is found out about files as people have them."""

import dataclasses
import json
import random
import re

import pytest
from look_shapes import SHAPES, rows, sentence, table, text

from jaxtune.core.errors import UserError
from jaxtune.data.look import names
from jaxtune.data.look.columns import describe
from jaxtune.data.look.guesses import Hints
from jaxtune.data.look.headers import find_shape
from jaxtune.data.look.opening import open_source
from jaxtune.data.sources.rows import read_data
from jaxtune.drafting.config_draft import Draft, settings_in, write_draft
from jaxtune.drafting.first_config import first_config, look
from jaxtune.drafting.machine import Machine
from jaxtune.run.config import load_config
from jaxtune.settings.dicts import to_dict
from jaxtune.tasks.registry import find_task


def find(path, hints=Hints(), model=None):  # noqa: B008
    return first_config(look(str(path), hints), model, Machine())


@pytest.mark.parametrize("name", SHAPES)
def test_files_as_people_have_them(name, tmp_path, monkeypatch):
    shape = SHAPES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / shape.file).write_bytes(shape.content)
    found = find(shape.file)
    chosen = found.guess
    assert (chosen.task, chosen.texts, chosen.labels) == (shape.task, shape.texts, shape.labels)
    settings = settings_in(found.lines)
    assert settings.task == shape.task
    data = to_dict(settings)["data"]
    assert {key: data[key] for key in shape.settings} == shape.settings
    for key in ("encoding", "format", "column_names", "on_bad_row"):  # no more than is needed
        default = {"encoding": "utf-8", "on_bad_row": "stop", "column_names": ()}.get(key)
        assert key in shape.settings or key == "column_names" or data[key] == default
    assert bool(found.others) == shape.doubted, found.others
    # What is written says the same, and so does each other choice that a person may take.
    draft = Draft("A title.", ("jaxtune train",), "A body.", found.lines, found.others)
    file = tmp_path / "config.py"
    file.write_text(write_draft(draft), encoding="utf-8")
    assert load_config(str(file), {}) == settings
    for other in found.others:
        written = write_draft(draft._replace(others=(other,)))
        head, _, tail = written.partition("# If that is what is meant:")
        file.write_text(head + re.sub(r"^    # ", "    ", tail, flags=re.M), encoding="utf-8")
        meant = load_config(str(file), {})
        assert (meant != settings) == bool(other.lines)
        if "NAME" not in other.lines.values():
            read_data(meant.data, find_task(meant.task).data.reader)


def test_what_a_person_says_is_not_doubted(tmp_path):
    file = tmp_path / "a.csv"
    header = ["title", "text", "label", "stars"]
    made = table(header, text, text, lambda r, i: "ab"[i % 2], lambda r, i: i % 5)
    file.write_bytes(made)
    found = find(file, Hints("regression", ("title",), "stars"))
    assert (found.guess.task, found.guess.texts, found.guess.labels) == (
        "regression",
        ("title",),
        ("stars",),
    )
    assert not found.others
    with pytest.raises(UserError, match=r"'headline'.*Nearest: title|'headline'"):
        find(file, Hints(None, ("headline",), None))


def test_rare_classes_unknown_words_and_cut_texts_are_told(tmp_path, tiny_families):
    def label(rng, i):
        return "rare" if i < 2 else "often"

    file = tmp_path / "a.csv"
    file.write_bytes(table(["text", "label"], text, label, count=80))
    found = find(file, model=str(tiny_families["bert"]))
    told = " ".join(found.notes)
    assert "rare (2)" in told or "rare (1)" in told
    assert "unknown to the model's vocabulary" in told
    settings = settings_in(found.lines)
    assert settings.data.tokens.max_length == 48  # all that the model has
    assert settings.train.best_metric == "macro_f1"
    assert not settings.loss.class_weights  # stands in a comment
    assert any(line.setting == "loss.class_weights" for line in found.lines)


def test_lengths_are_those_of_the_tokenizer(tmp_path, minilm):
    from tokenizers import Tokenizer

    texts = [
        " ".join(sentence(rng, 30) for _ in range(9)) for rng in [__import__("random").Random(3)]
    ]
    texts += [made for (made,) in rows(30, text)]
    file = tmp_path / "a.jsonl"

    lines = [json.dumps({"text": t, "label": "ab"[i % 2]}) for i, t in enumerate(texts * 2)]
    file.write_text("\n".join(lines))
    facts = dict(find(file, model=str(minilm)).facts)
    own = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    own.no_truncation()
    own.no_padding()
    sizes = [len(own.encode(t).ids) for t in texts]
    assert facts["tokens"].startswith(f"{min(sizes)} to {max(sizes)}, ")


@pytest.mark.parametrize(
    ("content", "file", "told"),
    [
        (b"__label__a good\n__label__b bad\n", "a.txt", "fastText"),
        (table(["Sentence #", "Word", "POS", "Tag"], lambda r, i: i // 9, lambda r, i: f"w{i % 40}",
               lambda r, i: "NN" if i % 2 else "VB", lambda r, i: "B-geo" if i % 9 == 0 else "O"),
         "ner.csv", "one word a row"),
        (b"a,b\n1,2\n3,4\n", "n.csv", "no column of texts"),
        (b"text,label\n", "e.csv", "no records"),
        (b"", "e.csv", "empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_from_is_refused_with_the_remedy(content, file, told, tmp_path):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=told):
        find(tmp_path / file)


def test_a_path_that_is_not_there_is_not_asked_of_a_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text,label\na b c,x\n")
    with pytest.raises(UserError, match=r"Nearest: reviews.csv.*on this machine"):
        look("review.csv", Hints())
    with pytest.raises(UserError, match="on this machine"):
        look("stanfordnlp/imdb", Hints())


def test_splits_by_the_names_of_files_one_without_a_header(tmp_path):
    made = rows(60, text, text, lambda r, i: f"{r.uniform(0, 5):.1f}")
    train = "\n".join("\t".join(row) for row in [["sentence1", "sentence2", "score"], *made])
    test = "\n".join("\t".join([n, one, two]) for one, two, n in made[:20])
    (tmp_path / "train.tsv").write_text(train)
    (tmp_path / "test.tsv").write_text(test)
    found = find(tmp_path)
    settings = settings_in(found.lines)
    assert settings.data.source.files.column_names == ("score", "sentence1", "sentence2")
    assert "test.tsv has no header row" in " ".join(other.told for other in found.others)
    assert any(re.match(r"1\d of 20 test texts are also in train", note) for note in found.notes)
    data = read_data(settings.data, find_task("regression").data.reader)
    assert {split: len(rows.inputs) for split, rows in data.splits.items()} == {
        **{"train": 48, "test": 20, "validation": 12}
    }


def test_sizes_of_splits_that_are_there_are_not_said(tmp_path):
    for split in ("train", "validation"):
        made = table(["text", "label"], text, lambda r, i: "xy"[i % 2])
        (tmp_path / f"{split}.csv").write_bytes(made.replace(b"The", split.encode()))
    named = {line.setting for line in find(tmp_path).lines}
    assert not named & {"data.validation_size", "data.test_size"}
    (tmp_path / "validation.csv").unlink()
    assert "data.validation_size" in {line.setting for line in find(tmp_path).lines}


def test_another_task_keeps_no_metric_of_this_one(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(table(["text", "stars"], text, lambda r, i: 1 + (i % 30 == 0), count=90))
    found = find(file)
    assert settings_in(found.lines).train.best_metric == "macro_f1"
    (other,) = found.others
    assert other.lines == {"task": "regression", "train.best_metric": None}


def test_a_class_above_the_same_classes_is_no_header():
    below = [["spam", f"a longer text {i} than that above"] for i in range(9)] + [["ham", "more"]]
    assert not find_shape([["ham", "ok"], *below]).has_header
    assert find_shape([["kind", "ok"], *below]).has_header


def test_most_texts_are_left_whole(tmp_path, minilm):
    rng = random.Random(0)
    lines = [json.dumps({"text": sentence(rng, 150), "label": "ab"[i % 2]}) for i in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = find(tmp_path / "a.jsonl", model=str(minilm))
    assert settings_in(found.lines).data.tokens.max_length == 256


def test_folders_of_texts_and_of_images(tmp_path):
    from PIL import Image

    for name in ("good", "bad"):
        for i in range(12):
            place = tmp_path / "texts" / name / f"{i}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"A {name} text, the {i}th of them.")
            place = tmp_path / "images" / name / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (i, 0, 0)).save(place)
    texts, images = find(tmp_path / "texts"), find(tmp_path / "images")
    assert (texts.guess.task, texts.guess.labels) == ("classification", ("label",))
    assert (images.guess.task, images.model.path) == ("image_classification", "microsoft/resnet-18")
    assert dict(images.facts)["classes"].startswith("2 in train: ")


@pytest.mark.parametrize("rest", [b'b c d,"never closed\n', b"more, fields, than, two\n"])
def test_a_few_broken_lines_are_left_out_and_counted(rest, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(table(["text", "label"], text, lambda r, i: "xy"[i % 2]) + rest)
    found = find(file)
    assert settings_in(found.lines).data.source.files.on_bad_row == "skip"
    assert any("1 of 61 rows skipped" in note for note in found.notes)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["4,5", "3,0", "1,5"] * 20, "class"),
        (["2020-01-02", "2021-11-30"] * 9, "date"),
        (["", None, float("nan")], "empty"),
        (["a.png", "b.jpg"], "file"),
        (["ja", "nein"] * 9, "flag"),
        ([str(10_000 + 7 * i) for i in range(50)], "id"),
        ([str(i % 7) for i in range(50)], "class"),
        ([f"{i / 7:.3f}" for i in range(50)], "number"),
        ([[1, 0, 0], [1, 1, 0]], "hot"),
        (["['a', 'b']", "['c']"], "other"),
    ],
)
def test_what_a_column_is(values, kind):
    column = describe("column", values)
    assert column.kind == kind
    assert bool(column.note) == (values[0] in ("4,5", "['a', 'b']"))


def test_names_say_what_columns_hold():
    assert names.rank("Gold_Label", names.LABELS) > names.rank("news category", names.LABELS) > 0
    assert names.rank("Unnamed: 0", names.LABELS) == 0
    assert names.is_other("user_id")
    assert not names.is_other("label")
    assert names.pair_of(["id", "Text A", "Text B"]) == ("Text A", "Text B")
    assert names.pair_of(["textLeft", "textRight"]) == ("textLeft", "textRight")
    assert names.pair_of(["a", "text"]) is None


def test_the_settings_of_a_file_read_it_again(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(table(["text", "label"], text, lambda r, i: "xy"[i % 2], encoding="utf-16"))
    opened = open_source(str(file))
    again = open_source(str(file))
    assert dataclasses.asdict(opened.source) == dataclasses.asdict(again.source)
    assert opened.train.columns == again.train.columns
