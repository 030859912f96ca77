"""Tokens of pieces looked up against tokens of whole texts, by the library itself."""

import itertools
import random

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from jaxtune.data.text import lexicon, token_parts
from jaxtune.data.text.lexicon import open_lexicon
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokens import load_tokenizer, tokenize

WORDS = (
    *("the", "cat", "Film", "dog's", "isn't", "run,", "(good)", "[MASK]", "<mask>", "[sep]", "a"),
    *("été", "e\u0301", "\u0301x", "ΣΑΣ", "straße", "İ", "中文", "x中y", "ﬁ", "🙂", "a\u200bb"),
    *("a\tb", "a\nb", "\n", "\t", "a\u00a0b", "a\u2028b", "a\x85b", "a\x1cb", "x" * 120, "", ""),
    *(" ", "a\u00adb", "1999", "3.14", "$5", "--", "...", "\ufffd", "\u0000", "'s", "<", "mask>"),
    "|x|",
)
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "a"), ("Ġ", "ca"), ("Ġ", "Ġ"), ("'", "s")]


def byte_level(prefix, form, *added):
    """Byte-level BPE of a few merges, as GPT-2's, RoBERTa's and ModernBERT's are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", "<pad>", *alphabet, *("".join(pair) for pair in MERGES)]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.normalizer = normalizers.NFC() if form else None
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    backend.add_tokens([*added])
    return FileTokenizer(backend, {"pad_token": "<pad>"})


@pytest.fixture(params=["bert", "plain", "prefix", "added"])
def tokenizer(request, golden):
    if request.param == "bert":
        return load_tokenizer(golden / "odd")
    if request.param == "added":
        mask = AddedToken("<mask>", lstrip=True, special=True)
        return byte_level(False, True, mask, AddedToken("   "), AddedToken("|x|", rstrip=True))
    return byte_level(request.param == "prefix", False)


@pytest.fixture
def rows():
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randrange(9))) for _ in range(500)]
    return [(text,) for text in ["", " ", " the", "the ", "  ", *texts]]


def same(found, expected):
    tokens, cut = found
    np.testing.assert_array_equal(tokens.input_ids, expected.input_ids)
    np.testing.assert_array_equal(tokens.lengths, expected.lengths)
    types = expected.token_type_ids
    np.testing.assert_array_equal(tokens.token_type_ids, 0 if types is None else types)
    assert cut == expected.num_cut


@pytest.mark.parametrize(("length", "side"), [(64, "right"), (9, "left"), (5, "right")])
def test_pieces_have_the_tokens_of_the_whole(tokenizer, rows, monkeypatch, length, side):
    tokenizer = FileTokenizer(
        tokenizer.backend_tokenizer, tokenizer.special | {"truncation_side": side}
    )
    by_library, asked = token_parts._by_library, []

    def count(tokenizer, rows, max_length):
        asked.append(len(rows))
        return by_library(tokenizer, rows, max_length)

    monkeypatch.setattr(token_parts, "_by_library", count)
    pairs = [(a, b) for (a,), (b,) in itertools.pairwise(rows)]
    for some in (rows, pairs):
        same(tokenize(tokenizer, some, length), by_library(tokenizer, some, length))
    few = [("the cat run, the dog's Film",), ("the (good) cat",)] * 1000
    asked.clear()
    same(tokenize(tokenizer, few, length), by_library(tokenizer, few, length))
    assert sum(asked) <= 2 * token_parts._COMPARED * 2  # the others were looked up


def test_a_piece_is_asked_for_once(tokenizer, monkeypatch):
    asked = []
    encode = FileTokenizer.encode
    monkeypatch.setattr(
        FileTokenizer,
        "encode",
        lambda self, texts, **more: asked.extend(texts) or encode(self, texts, **more),
    )
    book = open_lexicon(tokenizer)
    for _ in range(3):
        book.look_up(["the cat and the dog", "the dog and the cat"] * 50)
    assert len(asked) == len({*asked}) <= 6


def test_what_is_forgotten_is_learnt_again(tokenizer, rows, monkeypatch):
    book = open_lexicon(tokenizer)
    texts = [text for (text,) in rows[:200]]
    first = book.look_up(texts)
    monkeypatch.setattr(lexicon, "_MOST", 0)
    for one, other in zip(first, book.look_up(texts), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": normalizers.Replace(" ", "_")},
        {"normalizer": normalizers.NFKC()},
        {"pre_tokenizer": pre_tokenizers.Metaspace()},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(use_regex=False)},
        {"model": models.BPE({"a": 0}, [], dropout=0.1)},
    ],
)
def test_tokenizers_of_other_kinds_have_no_lexicon(change):
    tokenizer = byte_level(False, False)
    assert open_lexicon(tokenizer) is not None
    for name, value in change.items():
        setattr(tokenizer.backend_tokenizer, name, value)
    assert open_lexicon(tokenizer) is None


def test_an_added_token_with_a_space_has_no_lexicon():
    assert open_lexicon(byte_level(False, False, "the cat")) is None


def test_a_lexicon_that_is_wrong_is_not_used(golden, rows, monkeypatch):
    tokenizer = load_tokenizer(golden / "odd")
    expected = token_parts._by_library(tokenizer, rows, 16)
    monkeypatch.setattr(lexicon, "_between_spaces", lambda text: text.split("o"))
    same(tokenize(tokenizer, rows, 16), expected)
