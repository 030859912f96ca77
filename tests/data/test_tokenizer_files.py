"""Every layout of a folder's tokenizer, against the files themselves and against transformers."""

import json
import os
import shutil
from itertools import pairwise

import pytest
from cover import mark_rest
from layouts import KINDS, make, write_slow_files
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from jaxtune.core.errors import UserError
from jaxtune.data.text.tokenizer_files import has_tokenizer, load_tokenizer
from jaxtune.data.text.tokens import tokenize

TEXTS = ["The naïve EU in 2019", " the ships' harbour", "É", "", "1987  EU, noon"]


def ids_of(tokenizer, rows):
    found, _ = tokenize(tokenizer, rows, 64)
    return [found.input_ids[a:b].tolist() for a, b in pairwise(found.offsets)]


@pytest.mark.parametrize("kind", mark_rest(KINDS, KINDS))
def test_tokenizer_json_is_obeyed_and_exported(tmp_path, kind):
    backend = make(tmp_path / "base", kind)
    found = load_tokenizer(tmp_path / "base")
    assert found.notes == ()
    rows = [(text,) for text in TEXTS]
    expected = [backend.encode(text).ids for text in TEXTS]
    assert ids_of(found, rows) == expected
    pairs = [(TEXTS[0], text) for text in TEXTS]
    assert ids_of(found, pairs) == [backend.encode(*pair).ids for pair in pairs]
    exports = [tmp_path / name for name in ("one", "two")]
    for folder, long in zip(exports, (4, 64), strict=True):
        tokenize(found, rows, long)
        folder.mkdir()
        found.save_pretrained(folder)
        shutil.copy(tmp_path / "base" / "config.json", folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (exports[0] / file).read_bytes() == (exports[1] / file).read_bytes()
    written = json.loads((exports[0] / "tokenizer.json").read_text())
    assert written["truncation"] is written["padding"] is None
    again, theirs = load_tokenizer(exports[0]), AutoTokenizer.from_pretrained(exports[0])
    special = " ".join(found.special.values())
    for text in (*TEXTS, f"a {special} b", special.replace(" ", "")):
        (ours,) = ids_of(found, [(text,)])
        assert ids_of(again, [(text,)]) == [ours]
        assert theirs(text)["input_ids"] == ours, text
        assert theirs(text, "EU")["input_ids"] == ids_of(found, [(text, "EU")])[0]
    assert again.special == found.special
    assert again.model_max_length == theirs.model_max_length == 64
    assert theirs.pad_token_id == found.pad_token_id
    assert again.digest == found.digest
    assert ("token_type_ids" in theirs.model_input_names) == kind.startswith("bert")


def test_dropout_of_bpe_is_left_out(tmp_path):
    make(tmp_path, "gpt2")
    text = " ".join(TEXTS) * 20
    plain = load_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    held = json.loads(file.read_text())
    held["model"]["dropout"] = 0.5
    file.write_text(json.dumps(held))
    theirs = Tokenizer.from_file(str(file))  # which draws anew each time
    theirs.no_truncation()
    theirs.no_padding()
    assert theirs.encode(text).ids != theirs.encode(text).ids
    found = load_tokenizer(tmp_path)
    assert found.notes == (f"{file}: BPE's dropout of 0.5 is left out",)
    assert ids_of(found, [(text,)]) == ids_of(plain, [(text,)])
    found.save_pretrained(tmp_path)
    assert json.loads(file.read_text())["model"]["dropout"] is None


@pytest.mark.parametrize("kind", ["bert, lower case", "roberta", "gpt2"])
def test_slow_files_alone_are_read_as_transformers_reads_them(tmp_path, kind):
    backend = make(tmp_path / "base", kind)
    write_slow_files(tmp_path / "base", backend)
    assert has_tokenizer(tmp_path / "base")
    found, theirs = (
        load_tokenizer(tmp_path / "base"),
        AutoTokenizer.from_pretrained(tmp_path / "base"),
    )
    for text in TEXTS:
        assert ids_of(found, [(text,)]) == [theirs(text)["input_ids"]]
    folder = tmp_path / "export"
    folder.mkdir()
    found.save_pretrained(folder)
    shutil.copy(tmp_path / "base" / "config.json", folder)
    again, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        (ours,) = ids_of(again, [(text,)])
        assert ours == theirs(text)["input_ids"] == ids_of(found, [(text,)])[0]
    assert again.special == found.special


@pytest.mark.parametrize(
    ("kind", "differs"),
    [("bert", True), ("bert, lower case", False), ("roberta", True), ("gpt2", False)],
)
def test_slow_files_that_say_something_else_are_noted(tmp_path, kind, differs):
    backend = make(tmp_path, kind)
    backend.model.save(str(tmp_path))
    found = load_tokenizer(tmp_path)
    assert ids_of(found, [(TEXTS[0],)]) == [backend.encode(TEXTS[0]).ids]
    assert bool(found.notes) == differs
    if differs:
        assert all(word in found.notes[0] for word in ("tokenizer.json is taken", "vocab"))


def test_what_is_missing_is_named(tmp_path):
    make(tmp_path, "gpt2").model.save(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.*merges\.txt"):
        load_tokenizer(tmp_path)


def test_tokens_named_in_the_files_are_special(tmp_path):
    kind = {"__type": "AddedToken", "special": True}
    left = {"content": "<x>", "lstrip": True, **kind}
    make(tmp_path, "bert", additional_special_tokens=["<ent>", left])
    mask = {"content": "harbour", "lstrip": False}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": mask}))
    found, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert found.mask_token_id == theirs.mask_token_id == found.get_vocab()["harbour"]
    assert len(found) == len(theirs)
    tokens = {
        "the harbours": ["the", "harbour", "s"],
        "<ent> at": ["<ent>", "at"],
        "at <x>noon": ["at", "<x>", "noon"],
    }
    for text, expected in tokens.items():
        (ids,) = ids_of(found, [(text,)])
        assert found.convert_ids_to_tokens(ids)[1:-1] == expected
        assert theirs(text)["input_ids"] == ids
    assert {*found.all_special_ids} >= {found.get_vocab()[token] for token in ("<ent>", "<x>")}


def spoil(folder, file, **fields):
    content = json.loads((folder / file).read_text())
    for name, value in fields.items():
        part = content["model"] if file == "tokenizer.json" and name != "version" else content
        part[name] = value
    (folder / file).write_text(json.dumps(content))


BAD = {
    "newer model": ("tokenizer.json", {"type": "SyllablePiece"}, "SyllablePiece|tokenizer.json"),
    "no vocabulary": ("tokenizer.json", {"vocab": []}, "tokenizer.json"),
    "newer version": ("tokenizer.json", {"version": "9.0"}, "tokenizer.json"),
    "no unknown word": ("tokenizer.json", {"unk_token": "[GONE]"}, "tokenizer.json"),
    "code": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map"),
    "code of the model": ("config.json", {"auto_map": {"AutoConfig": "a.B"}}, "auto_map"),
    "limit": ("tokenizer_config.json", {"model_max_length": "many"}, "model_max_length"),
    "side": ("tokenizer_config.json", {"truncation_side": 5}, "truncation_side"),
    "class": ("tokenizer_config.json", {"tokenizer_class": []}, "tokenizer_class"),
    "special": ("tokenizer_config.json", {"mask_token": 5}, "special token '5'"),
    "extra": ("tokenizer_config.json", {"extra_special_tokens": 5}, "tokenizer"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    make(tmp_path, "bert")
    file, fields, message = BAD[name]
    spoil(tmp_path, file, **fields)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, "9" * 5000, "\xff", '{"a": 1'])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_what_is_no_object_is_refused(tmp_path, file, content):
    make(tmp_path, "bert")
    (tmp_path / file).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=file):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "config.json"])
def test_only_regular_files_are_opened(tmp_path, name):
    make(tmp_path, "bert")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / name).symlink_to(tmp_path / "pipe")
    with pytest.raises(UserError, match=rf"{name} is no.*regular file"):
        load_tokenizer(tmp_path)


def test_code_is_refused_before_transformers_sees_it(tmp_path, monkeypatch):
    backend = make(tmp_path, "bert", auto_map={"AutoTokenizer": ["a.B", "a.B"]})
    write_slow_files(tmp_path, backend)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("it saw it"))
    with pytest.raises(UserError, match="auto_map"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["model"]["vocab"].update(x=2**24 + 1), "a token has the id 16777217"),
        (lambda file: file.update(post_processor=template("$A $A")), "single .* a text 2 times"),
        (
            lambda file: file.update(
                post_processor={"type": "Sequence", "processors": [template("$A $A")]}
            ),
            "single .* a text 2 times",
        ),
    ],
)
def test_what_takes_endless_memory_is_refused_before_a_text_is_read(tmp_path, change, message):
    make(tmp_path, "bert")
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    change(file)
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def template(single):
    from tokenizers.processors import TemplateProcessing

    made = TemplateProcessing(single=single, pair="$A $B:1", special_tokens=[])
    return json.loads(made.__getstate__())
