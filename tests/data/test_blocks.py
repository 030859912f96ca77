"""Texts to blocks: what is read and skipped, what is joined, and where it is cut."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxtune.core.errors import UserError
from jaxtune.data.sources.locate import load_tables
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text import blocks
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokenizer_files import of_transformers
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.settings.data import DataSettings, SourceSettings
from jaxtune.settings.dicts import from_dict

LINES = ["the cat", "good film", "bad book and car", "dog", "a very old cat ran"]


@pytest.fixture(scope="module")
def bert(golden):
    return load_tokenizer(golden / "odd")


@pytest.fixture(scope="module")
def vocab(golden):
    words = (golden / "odd" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return {word: i for i, word in enumerate(words)}


def make_tokenizer(words, template=None, **special):
    """A tokenizer of whole words, with the ids in the order given."""
    ids = {word: i for i, word in enumerate(dict.fromkeys([*special.values(), *words]))}
    inner = Tokenizer(models.WordLevel(ids, unk_token=special.get("unk_token")))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        known = [(token, ids[token]) for token in {*special.values()} if token in template]
        inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=known)
    return of_transformers(PreTrainedTokenizerFast(tokenizer_object=inner, **special))


ROBERTA = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}


def read(path, **fields):
    return read_data(from_dict(DataSettings, {"path": str(path), **fields}), blocks.TEXTS)


# --- Reading ----------------------------------------------------------------------------------


def test_each_line_of_a_text_file_is_a_text_and_blank_lines_are_skipped(tmp_path):
    (tmp_path / "train.txt").write_text("\n one \n\n  \t\ntwo,2\r\n\r\nthree\n\n")
    (tmp_path / "validation.txt").write_text("four\n")
    (tmp_path / "README.txt").write_text("not data\n")
    data = read(tmp_path)
    assert list(data.splits["train"].inputs) == [" one ", "two,2", "three"]
    assert list(data.splits["validation"].inputs) == ["four"]
    assert data.class_names == ()
    assert data.splits["train"].labels is not None


def test_the_layout_of_wikitext(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"wiki.{split}.tokens").write_text(f" \n = {split} = \n \n the <unk> film \n")
    found = read(tmp_path).splits
    assert {split: list(rows.inputs) for split, rows in found.items()} == {
        split: [f" = {name} = ", " the <unk> film "]
        for split, name in (("train", "train"), ("validation", "valid"), ("test", "test"))
    }
    (tmp_path / "raw").mkdir()
    for split in ("train", "valid"):
        (tmp_path / "raw" / f"wiki.{split}.raw").write_text(f"{split}\n")
    assert list(read(tmp_path / "raw").splits["validation"].inputs) == ["valid"]


def test_the_lines_of_a_file_are_the_text_column_whatever_its_name(tmp_path):
    (tmp_path / "train.txt").write_text("".join(f"line {i}\n" for i in range(10)))
    data = read(tmp_path / "train.txt", text_columns=("sentence",), validation_size=3)
    assert len(data.splits["train"].inputs) == 7
    assert len(data.splits["validation"].inputs) == 3


def test_blank_rows_of_a_table_are_skipped(tmp_path, write_csv):
    write_csv(tmp_path / "train.csv", [("one", 1), ("", 2), (" ", 3), ("two", 4)])
    write_csv(tmp_path / "test.csv", [("three", "")])
    data = read(tmp_path, validation_size=1)
    kept = [*data.splits["train"].inputs, *data.splits["validation"].inputs]
    assert sorted(kept) == ["one", "two"]
    assert list(data.splits["test"].inputs) == ["three"]  # needs no labels


def test_equal_texts_stay_on_one_side_of_a_split(tmp_path):
    (tmp_path / "all.txt").write_text("".join(f"line {i % 8}\n" for i in range(80)))
    data = read(tmp_path / "all.txt", validation_size=0.25)
    train, held = (set(data.splits[split].inputs) for split in ("train", "validation"))
    assert len(train) + len(held) == 8
    assert held
    assert not train & held


@pytest.mark.parametrize(
    ("content", "columns", "parts"),
    [
        ('{"text": "a"}\n{"text": null}\n', ("text",), ["line 2", "nothing", "'text'", "Correct"]),
        ('{"text": "a"}\n{"text": 3}\n', ("text",), ["line 2", "found 3", "expected a text"]),
        ('{"text": ""}\n{"text": " "}\n', ("text",), ["blank", "'text'", "text_columns"]),
        ('{"a": "x", "b": "y"}\n', ("a", "b"), ["2 columns (a, b)", "one text", "text_columns"]),
        ('{"a": "x"}\n', ("b",), ["'a'", "'b'", "text_columns"]),
    ],
)
def test_what_is_no_text(tmp_path, content, columns, parts):
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read(path, text_columns=columns)
    for part in parts:
        assert part in str(caught.value)


def test_a_file_without_lines_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"train\.txt: found no records"):
        read(tmp_path / "train.txt")


def test_lines_are_no_pairs_and_have_no_labels(tmp_path):
    (tmp_path / "train.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"train\.txt.*'a'.*'b'"):
        load_tables(SourceSettings(str(tmp_path / "train.txt")), ("a", "b"))


def test_new_texts_keep_their_places(tmp_path, write_csv):
    path = tmp_path / "new.txt"
    path.write_text("one\n\ntwo\n")
    for columns in ((), ("sentence",)):
        rows = blocks.read_new(path, columns, "utf-8")
        assert list(rows.inputs) == ["one", "", "two"]
        assert rows.labels is None
    table = write_csv(tmp_path / "new.csv", [("x", "1"), ("", "2")], header=("a", "b"))
    assert list(blocks.read_new(table, ("b",), "utf-8").inputs) == ["1", "2"]
    assert list(blocks.read_new(table, ("a",), "utf-8").inputs) == ["x", ""]
    single = write_csv(tmp_path / "one.csv", [("x",)], header=("a",))
    assert list(blocks.read_new(single, (), "utf-8").inputs) == ["x"]
    named = write_csv(tmp_path / "named.csv", [("x", "y")], header=("a", "text"))
    assert list(blocks.read_new(named, (), "utf-8").inputs) == ["y"]
    with pytest.raises(UserError, match=r"new\.csv has the columns a, b: .*--text_columns"):
        blocks.read_new(table, (), "utf-8")
    with pytest.raises(UserError, match="is a folder"):
        blocks.read_new(tmp_path, (), "utf-8")


# --- Tokens -----------------------------------------------------------------------------------


def test_texts_are_tokenized_whole_and_without_special_tokens(bert, vocab):
    texts = [*LINES, " ".join(["cat"] * 700), ""]
    expected = [[vocab[word] for word in text.split()] for text in texts]
    found = blocks.tokenize_texts(bert, texts)
    assert [ids.tolist() for ids in found] == expected
    assert all(ids.dtype == np.int32 for ids in found)


def test_progress_counts_chunks_of_texts(bert):
    seen = []

    def track(chunks):
        for chunk in chunks:
            seen.append(chunk)
            yield chunk

    assert len(blocks.tokenize_texts(bert, ["cat"] * 4001, track)) == 4001
    assert seen == [0, 2000, 4000]


def test_the_separator_and_the_frame_are_the_tokenizer_s_own(bert, vocab):
    tokens = blocks.tokenize_texts(bert, ["", "the cat"])
    cls, sep = vocab["[CLS]"], vocab["[SEP]"]
    assert blocks.separator(bert) == sep
    assert blocks.find_frame(bert, ["", "the cat"], tokens) == ((cls,), (sep,))

    roberta = make_tokenizer(["cat"], "<s> $A </s>", **ROBERTA)
    assert blocks.separator(roberta) == 2
    found = blocks.find_frame(roberta, ["cat"], blocks.tokenize_texts(roberta, ["cat"]))
    assert found == ((0,), (2,))

    both = make_tokenizer(["cat"], eos_token="</s>", sep_token="[SEP]")
    assert blocks.separator(both) == both.get_vocab()["[SEP]"] == 1

    gpt2 = make_tokenizer(["cat"], eos_token="<|endoftext|>")
    assert blocks.separator(gpt2) == 0
    tokens = blocks.tokenize_texts(gpt2, ["cat"])
    assert blocks.find_frame(gpt2, ["cat"], tokens) == blocks.NO_FRAME == ((), ())


@pytest.mark.parametrize("text", ["[CLS]", "[SEP] [SEP]", "[CLS] cat [SEP]", "[MASK]"])
def test_special_tokens_written_in_a_text_are_not_taken_for_the_frame(bert, vocab, text):
    frame = blocks.find_frame(bert, [text], blocks.tokenize_texts(bert, [text]))
    assert frame == ((vocab["[CLS]"],), (vocab["[SEP]"],))


def test_there_is_no_frame_where_no_text_has_tokens(bert):
    assert blocks.find_frame(bert, ["", " "], blocks.tokenize_texts(bert, ["", " "])) == ((), ())


def test_a_tokenizer_without_a_separator_is_refused():
    with pytest.raises(UserError, match="neither a sep_token nor an eos_token"):
        blocks.separator(make_tokenizer(["cat"], pad_token="[PAD]"))


def test_special_tokens_are_all_that_the_tokenizer_knows(golden, vocab):
    special = {vocab[f"[{name}]"] for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    assert {*load_tokenizer(golden / "odd").all_special_ids} == special
    known = load_tokenizer(golden / "odd").backend_tokenizer
    known.add_tokens([AddedToken("[TITLE]", special=True), "word"])
    found = FileTokenizer(known, {"pad_token": "[PAD]"}).all_special_ids
    assert {*found} == special | {known.token_to_id("[TITLE]")}


# --- Blocks -----------------------------------------------------------------------------------


def joined_by_hand(texts, between):
    stream = []
    for text in texts:
        if stream or text is not texts[0]:
            stream.append(between)
        stream.extend(text)
    return stream


@pytest.mark.parametrize(
    "texts", [[[1, 2], [3]], [[1]], [[], [5]], [[5], []], [[]], [[1, 2, 3], [], [4]]]
)
def test_texts_are_joined_with_one_token_between_them(texts):
    found = blocks.join([np.array(ids, np.int32) for ids in texts], 9)
    assert found.tolist() == joined_by_hand(texts, 9)
    assert found.dtype == np.int32


@pytest.mark.parametrize("size", [3, 4, 7])
@pytest.mark.parametrize("count", range(1, 16))
def test_blocks_hold_every_token_once_in_order(count, size):
    tokens = np.arange(count, dtype=np.int32)
    found = blocks.cut(tokens, size)
    assert [i for block in found for i in block] == list(range(count))
    assert all(len(block) == size for block in found[:-1])
    assert 1 <= len(found[-1]) <= size


@pytest.mark.parametrize("size", [3, 4, 7])
@pytest.mark.parametrize("count", range(2, 16))
def test_blocks_that_overlap_predict_every_token_but_the_first_once(count, size):
    found = blocks.cut(np.arange(count, dtype=np.int32), size, overlap=1)
    predicted = [int(i) for block in found for i in block[1:]]
    assert predicted == list(range(1, count))
    assert all(2 <= len(block) <= size for block in found)


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("count", range(1, 12))
def test_a_last_block_that_is_too_short_takes_tokens_along(count, size):
    found = blocks.cut(np.arange(count, dtype=np.int32), size, least=2)
    plain = blocks.cut(np.arange(count, dtype=np.int32), size)
    assert len(found) == len(plain)
    short = count > 1 and count % size == 1
    for block, expected in zip(found[: -1 if short else None], plain, strict=False):
        assert block.tolist() == expected.tolist()
    if short:
        assert found[-1].tolist() == [count - 2, count - 1]


def test_no_tokens_are_one_empty_block():
    assert [block.tolist() for block in blocks.cut(np.zeros(0, np.int32), 4)] == [[]]
    alone = blocks.cut(np.array([7], np.int32), 4, overlap=1)
    assert [block.tolist() for block in alone] == [[7]]


def test_blocks_stand_in_their_frame_and_know_their_text():
    parts = [[[5, 6], [7]], [[]], [[8]]]
    parts = [[np.array(ids, np.int32) for ids in text] for text in parts]
    found = blocks.make_examples(parts, 0, blocks.Frame((1,), (2, 3)))
    expected = [[1, 5, 6, 2, 3], [1, 7, 2, 3], [1, 2, 3], [1, 8, 2, 3]]
    bounds = zip(found.tokens.offsets, found.tokens.offsets[1:], strict=False)
    assert [found.tokens.input_ids[a:b].tolist() for a, b in bounds] == expected
    assert found.tokens.input_ids.dtype == np.int32
    assert found.tokens.token_type_ids.tolist() == [0] * 16
    assert list(found.info) == [0, 0, 1, 2]


def test_a_block_without_any_token_is_padding():
    found = blocks.make_examples([[np.array([], np.int32)], [np.array([5])]], 4)
    assert found.tokens.input_ids.tolist() == [4, 5]
    assert found.lengths.tolist() == [1, 1]


def test_special_tokens_must_leave_room():
    frame = blocks.Frame((1,), (2, 3))
    assert blocks.room(frame, 4) == 1
    with pytest.raises(UserError, match=r"max_length is 3.*3 special tokens.*at least 4"):
        blocks.room(frame, 3)


def test_the_lines_of_json_are_not_lines_of_text(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "one\ntwo"}) + "\n")
    rows = blocks.read_new(tmp_path / "train.jsonl", (), "utf-8")
    assert list(rows.inputs) == ["one\ntwo"]
