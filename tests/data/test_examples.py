import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer

from jaxtune.core.errors import UserError
from jaxtune.data.text import token_parts
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.tokens import Tokens, load_tokenizer, tokenize


@pytest.fixture(scope="module")
def odd(request):
    return request.path.parents[1] / "golden" / "bert" / "odd"


@pytest.fixture(scope="module")
def tokenizer(odd):
    return load_tokenizer(odd)


@pytest.fixture(scope="module")
def index(odd):
    """Token -> id, from vocab.txt itself."""
    words = (odd / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return {word: i for i, word in enumerate(words)}


def rows_of(examples):
    cuts = examples.offsets[1:-1]
    return [part.tolist() for part in np.split(examples.input_ids, cuts)]


def types_of(examples):
    return [part.tolist() for part in np.split(examples.token_type_ids, examples.offsets[1:-1])]


def ids(index, text):
    return [index[word] for word in text.split()]


def test_single_texts(tokenizer, index):
    texts = [("good film",), ("",), ("Run, DOG!",), ("loved",)]
    found, cut = tokenize(tokenizer, texts, 16)
    expected = [
        "[CLS] good film [SEP]", "[CLS] [SEP]", "[CLS] run , dog ! [SEP]", "[CLS] love ##d [SEP]",
    ]  # fmt: skip
    assert rows_of(found) == [ids(index, text) for text in expected]
    assert not found.token_type_ids.any()
    assert found.lengths.tolist() == [4, 2, 6, 4]
    assert cut == 0
    assert found.input_ids.dtype == np.uint16
    assert found.token_type_ids.strides == (0,)  # which take no memory


def test_pairs_have_two_token_types(tokenizer, index):
    found, cut = tokenize(tokenizer, [("good film", "bad"), ("the", "cat ran")], 16)
    expected = ["[CLS] good film [SEP] bad [SEP]", "[CLS] the [SEP] cat ran [SEP]"]
    assert rows_of(found) == [ids(index, text) for text in expected]
    assert types_of(found) == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert cut == 0


@pytest.mark.parametrize(("max_length", "cuts"), [(8, 0), (7, 1), (5, 1), (4, 1), (3, 2)])
def test_long_texts_are_cut_and_counted(tokenizer, index, max_length, cuts):
    texts = ["good", "the film is not very good", "the cat"]
    found, cut = tokenize(tokenizer, [(text,) for text in texts], max_length)
    words = [text.split()[: max_length - 2] for text in texts]
    expected = [ids(index, " ".join(["[CLS]", *some, "[SEP]"])) for some in words]
    assert rows_of(found) == expected
    assert cut == cuts


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("the cat and the dog ran", "good film", "[CLS] the cat and [SEP] good film [SEP]"),
        ("good film", "the cat and the dog ran", "[CLS] good film [SEP] the cat and [SEP]"),
    ],
)
def test_of_a_pair_the_longer_text_is_cut_first(tokenizer, index, first, second, expected):
    found, cut = tokenize(tokenizer, [("a", "b"), (first, second)], 8)
    assert rows_of(found)[1] == ids(index, expected)
    assert types_of(found)[1] == [0] * (expected.split().index("[SEP]") + 1) + [1] * (
        7 - expected.split().index("[SEP]")
    )
    assert cut == 1


@pytest.fixture
def opinionated(odd, tmp_path):
    """A tokenizer.json that cuts at 4 tokens and pads to 12."""
    folder = tmp_path / "opinionated"
    shutil.copytree(odd, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["truncation"] = {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    content["padding"] = {
        "strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    file.write_text(json.dumps(content), encoding="utf-8")
    own = Tokenizer.from_file(str(file)).encode("the cat and the dog ran")
    assert (len(own.ids), sum(own.attention_mask)) == (12, 4)
    return folder


@pytest.mark.parametrize("max_length", [16, 5, 3])
def test_the_files_own_truncation_and_padding_are_ignored(tokenizer, opinionated, max_length):
    rows = [("good",), ("the cat and the dog ran",)] * 2
    other = load_tokenizer(opinionated)
    for _ in range(2):  # nor are they set by an earlier call
        found, cut = tokenize(other, rows, max_length)
        expected, expected_cut = tokenize(tokenizer, rows, max_length)
        assert rows_of(found) == rows_of(expected)
        assert types_of(found) == types_of(expected)
        assert cut == expected_cut


@pytest.mark.parametrize(("max_length", "length", "cuts"), [(64, 62, 0), (62, 62, 0), (41, 41, 1)])
def test_the_model_max_length_of_the_tokenizer_is_ignored(tokenizer, max_length, length, cuts):
    assert tokenizer.model_max_length == 41
    found, cut = tokenize(tokenizer, [("a " * 60,)], max_length)
    assert found.lengths.tolist() == [length]
    assert cut == cuts


def test_one_call_leaves_nothing_to_the_next(tokenizer):
    rows = [("the cat and the dog ran",)]
    tokenize(tokenizer, rows, 4)
    found, cut = tokenize(tokenizer, rows, 16)
    assert found.lengths.tolist() == [8]
    assert cut == 0


@pytest.mark.parametrize("count", [1, 3, 4, 7])
@pytest.mark.parametrize("pairs", [False, True])
def test_chunks_do_not_show(tokenizer, monkeypatch, count, pairs):
    words = ["the", "cat", "and", "the", "dog", "ran", "very", "good", "film"]
    texts = [" ".join(words[: i % 8 + 1]) for i in range(count)]
    rows = [(a, b) if pairs else (a,) for a, b in zip(texts, reversed(texts), strict=True)]
    expected, expected_cut = tokenize(tokenizer, rows, 6)
    monkeypatch.setattr(token_parts, "CHUNK", 3)
    steps = []

    def track(iterable):
        for item in iterable:
            steps.append(item)
            yield item

    found, cut = tokenize(tokenizer, rows, 6, track)
    assert steps == list(range(0, count, 3))
    assert rows_of(found) == rows_of(expected)
    assert types_of(found) == types_of(expected)
    assert cut == expected_cut


def test_no_texts_are_no_examples(tokenizer):
    found, cut = tokenize(tokenizer, [], 16)
    assert found.offsets.tolist() == [0]
    assert len(found.lengths) == len(found.input_ids) == len(found.token_type_ids) == cut == 0


def test_examples_show_sizes_not_contents():
    ids = np.arange(5)
    assert repr(Examples(Tokens(ids, ids, np.array([0, 2, 5])))) == "Examples(2 examples, 5 tokens)"


@pytest.mark.parametrize("name", ["odd_bare", "no_such_folder"])
def test_load_tokenizer_refuses_a_folder_without_one(odd, name):
    with pytest.raises(UserError, match=rf"{name} has no tokenizer") as error:
        load_tokenizer(odd.parent / name)
    assert "Expected tokenizer.json, or vocab.txt" in str(error.value)


def test_load_tokenizer_refuses_settings_without_a_vocabulary(odd, tmp_path):
    shutil.copy(odd / "tokenizer_config.json", tmp_path)
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(tmp_path)


def test_load_tokenizer_reads_a_plain_vocabulary(odd, tmp_path, index):
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(odd / name, tmp_path)
    found, _ = tokenize(load_tokenizer(tmp_path), [("good film",)], 16)
    assert rows_of(found) == [ids(index, "[CLS] good film [SEP]")]


def test_load_tokenizer_refuses_broken_files(odd, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(odd, folder)
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="broken has no tokenizer"):
        load_tokenizer(folder)


def test_load_tokenizer_refuses_one_without_a_padding_token(odd, tmp_path):
    folder = tmp_path / "padless"
    folder.mkdir()
    shutil.copy(odd / "tokenizer.json", folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(UserError, match=r"padless.*the tokenizer has no padding token"):
        load_tokenizer(folder)
