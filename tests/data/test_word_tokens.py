"""Words to tokens: which token stands for a word, and which words have none."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jaxtune.data.sources.rows import Rows
from jaxtune.data.text.tokenizer_files import of_transformers
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.data.text.word_tokens import UNSCORED, encode
from jaxtune.data.text.words import Tags, from_words
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict

PERSON = {0: "O", 1: "B-person", 2: "I-person"}


@pytest.fixture(scope="module")
def bert(request):
    return load_tokenizer(request.path.parents[1] / "golden" / "bert" / "odd")


def byte_level(prefix, special=True):
    """A tokenizer like RoBERTa's, or like GPT-2's without special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    corpus = ["I love Rome and Roman roads", "he loves new roads", "Rome's roads don't end, Romeo"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        corpus * 9,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if special:
        backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return of_transformers(PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>"))


def encoded(tokenizer, sentences, max_length=64, classes=None):
    rows = Rows([from_words(words) for words in sentences], None)
    if classes is not None:
        rows = rows._replace(labels=[Tags(np.array(c, np.int32), PERSON) for c in classes])
    return encode(rows, tokenizer, from_dict(DataSettings, {"max_length": max_length}))


def test_the_first_token_of_a_word_has_its_tag(bert):
    found, notes = encoded(bert, [["Loved", "dog"], ["ran"]], classes=[[1, 2], [0]])
    tokens = [bert.convert_ids_to_tokens(part) for part in np.split(found.tokens.input_ids, [5])]
    assert tokens == [["[CLS]", "love", "##d", "dog", "[SEP]"], ["[CLS]", "ran", "[SEP]"]]
    assert found.labels.tolist() == [-1, 1, -1, 2, -1, -1, 0, -1]
    assert found.weights.tolist() == [0, 1, 0, 1, 0, 0, 1, 0]
    assert found.labels.dtype == np.int32
    assert found.weights.dtype == np.float32
    assert found.tokens.input_ids.dtype == found.tokens.token_type_ids.dtype == np.int32
    assert [part.tokens.tolist() for part in found.info] == [[1, 3], [1]]
    assert [part.tags.classes.tolist() for part in found.info] == [[1, 2], [0]]
    assert found.info[0].sentence.text == "Loved dog"
    assert notes == []


def test_tokens_are_the_same_without_labels(bert):
    labelled, _ = encoded(bert, [["Loved", "dog"], ["ran"]], classes=[[1, 2], [0]])
    found, _ = encoded(bert, [["Loved", "dog"], ["ran"]])
    assert found.labels is None
    assert found.weights is None
    np.testing.assert_array_equal(found.tokens.input_ids, labelled.tokens.input_ids)
    assert [part.tokens.tolist() for part in found.info] == [[1, 3], [1]]
    assert all(part.tags is None for part in found.info)


def test_words_that_the_tokenizer_drops_have_no_token(bert):
    sentences = [["dog", "\u200b", "ran"], ["\ufeff"], ["", " ", "cat"]]
    found, notes = encoded(bert, sentences, classes=[[1, 2, 0], [1], [0, 0, 2]])
    assert [part.tokens.tolist() for part in found.info] == [[1, -1, 2], [-1], [-1, -1, 1]]
    assert found.lengths.tolist() == [4, 2, 3]
    scored = found.weights > 0
    assert found.labels[scored].tolist() == [1, 0, 2]
    assert notes == ["4 of 7 words are dropped by the tokenizer and predicted as O"]


def test_words_beyond_max_length_have_no_token(bert):
    words = ["dog", "\u200b", "loved", "cat", "\u200b", "ran"]
    found, notes = encoded(bert, [words, ["dog"]], max_length=4, classes=[[1] * 6, [1]])
    assert found.lengths.tolist() == [4, 3]
    assert found.info[0].tokens.tolist() == [1, -1, 2, -1, -1, -1]
    assert found.weights.tolist() == [0, 1, 1, 0, 0, 1, 0]
    assert notes == [
        "2 of 7 words are beyond max_length 4 and predicted as O",
        "2 of 7 words are dropped by the tokenizer and predicted as O",
    ]


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("special", [False, True])
def test_words_are_separate_for_a_byte_level_tokenizer(prefix, special):
    sentences = [
        ["Rome", "'s", "roads", "don't", "end"],
        ["Romeo", "love", ",", "\u200b", "\U0001f600"],
    ]
    found, notes = encoded(byte_level(prefix, special), sentences)
    # transformers asks for add_prefix_space=True with words.
    expected = byte_level(True, special).encode(sentences, words=True)
    assert found.tokens.input_ids.tolist() == [i for part in expected for i in part.ids]
    assert notes == []
    tokenizer = byte_level(True)
    for i, sentence in enumerate(sentences):
        tokens = found.tokens.input_ids[found.tokens.offsets[i] : found.tokens.offsets[i + 1]]
        parts = np.split(tokens[: -1 if special else None], found.info[i].tokens)
        words = [tokenizer.backend_tokenizer.decode(part.tolist()) for part in parts[1:]]
        assert words == [f" {word}" for word in sentence]


def test_chunks_and_batches(bert, monkeypatch):
    sentences = [["dog"] * (1 + i % 5) for i in range(23)]
    whole, _ = encoded(bert, sentences, classes=[[1] * len(words) for words in sentences])
    monkeypatch.setattr("jaxtune.data.text.word_tokens._CHUNK", 4)
    parts, _ = encoded(bert, sentences, classes=[[1] * len(words) for words in sentences])
    for one, other in zip(whole.tokens, parts.tokens, strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("labels", "weights"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_unscored_is_no_class():
    assert UNSCORED < 0
