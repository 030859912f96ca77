"""Windows over long contexts, against plain loops over separately tokenized texts."""

import dataclasses
import random
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import window_arrays, windows
from jaxtune.data.text.squad import Answer, Question
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokenizer_files import of_transformers
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.settings.data import AnswerSettings, DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks.registry import TASKS
from jaxtune.tasks.task import keeping

FORTY = from_dict(DataSettings, {"max_length": 40, "doc_stride": 8})
KINDS = ("bert", "gpt2", "roberta")
WORDS = [
    *("the", "river", "is", "not", "good", "it", "was", "a", "very", "great", "day"),
    *("42", "Zürich", "naïve", "🙂", "👩\u200d🚀", "(film)", "food,"),
]


def byte_level(post):
    """A byte-level BPE tokenizer, whose characters outside ASCII are several tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([" ".join(WORDS[:11])] * 3, trainer)
    bpe.post_processor = post
    return of_transformers(PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>"))


@pytest.fixture(params=KINDS)
def tokenizer(request):
    if request.param == "bert":
        return load_tokenizer(Path(__file__).parents[1] / "golden" / "bert" / "odd")
    if request.param == "gpt2":  # its offsets hold the space before a word
        return byte_level(processors.ByteLevel(trim_offsets=False))
    return byte_level(processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True))


@pytest.fixture
def bert():
    return load_tokenizer(Path(__file__).parents[1] / "golden" / "bert" / "odd")


def make_rows(seed, count=30, longest=60):
    """Questions on contexts of any length, answered by up to three of their words in a row."""
    rng = random.Random(seed)
    inputs, labels = [], []
    for i in range(count):
        words = rng.choices(WORDS, k=rng.randint(1, longest))
        question = " ".join(rng.choices(WORDS[:8], k=rng.randint(1, 3)))
        inputs.append(Question(f"q{i}", question, " ".join(words), i % 2 == 0))
        answers = []
        for _ in range(rng.randint(0, 2)):
            first = rng.randrange(len(words))
            text = " ".join(words[first : first + rng.randint(1, 3)])
            answers.append(Answer(text, len(" ".join([*words[:first], ""]))))
        labels.append(tuple(answers))
    for question, answers in zip(inputs, labels, strict=True):
        for text, start in answers:
            assert question.context[start : start + len(text)] == text
    return Rows(inputs, labels, [question.context for question in inputs])


def reference(tokenizer, question, context, answer, max_length, stride):
    """(tokens, label) of each window, from texts that were tokenized apart and put together."""
    special = tokenizer.num_special_tokens(pair=True)
    before, after = {3: ([2], [3]), 0: ([], []), 4: ([0], [2])}[special]  # BERT, GPT-2, RoBERTa
    between = after * (2 if special == 4 else 1)
    asked, encoded = tokenizer.backend_tokenizer.encode_batch(
        [question, context], add_special_tokens=False
    )
    head = [*before, *asked.ids, *between]
    tokens, spans = encoded.ids, encoded.offsets
    room = max_length - len(head) - len(after)
    found, start = [], 0
    while True:
        part = range(start, min(start + room, len(tokens)))
        label = (0, 0)
        if answer is not None and len(part):
            stop = answer.start + len(answer.text)
            inside = spans[part[0]][0] <= answer.start and stop <= spans[part[-1]][1]
            touched = [i for i in part if spans[i][0] < stop and spans[i][1] > answer.start]
            if inside:
                label = tuple(len(head) + i - start for i in (touched[0], touched[-1]))
        found.append(([*head, *(tokens[i] for i in part), *after], label))
        if part.stop == len(tokens):
            return found
        start += room - stride


def test_the_special_tokens_of_the_reference(bert):
    assert bert.convert_ids_to_tokens([2, 3]) == ["[CLS]", "[SEP]"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("max_length", "stride"), [(40, 8), (48, 0), (32, 12), (1000, 64)])
def test_windows_and_labels_are_those_of_plain_loops(
    tokenizer, seed, max_length, stride, monkeypatch
):
    monkeypatch.setattr(window_arrays, "CHUNK", 7)
    rows = make_rows(seed)
    settings = from_dict(DataSettings, {"max_length": max_length, "doc_stride": stride})
    examples, _ = windows.encode(rows, tokenizer, settings)
    expected = [
        (row, *window)
        for row, (q, answers) in enumerate(zip(rows.inputs, rows.labels, strict=True))
        for window in reference(
            tokenizer, q.question, q.context, next(iter(answers), None), max_length, stride
        )
    ]
    assert [window.row for window in examples.info] == [row for row, _, _ in expected]
    for i, (_, tokens, label) in enumerate(expected):
        span = slice(examples.tokens.offsets[i], examples.tokens.offsets[i + 1])
        assert examples.tokens.input_ids[span].tolist() == tokens
        assert tuple(examples.labels[i]) == label
    assert examples.labels.dtype == np.int32
    assert max_length == 1000 or max(np.bincount([row for row, _, _ in expected])) > 2


@pytest.mark.parametrize("seed", range(3))
def test_labelled_tokens_read_as_the_answer(tokenizer, seed):
    rows = make_rows(seed)
    examples, _ = windows.encode(
        rows, tokenizer, from_dict(DataSettings, {"max_length": 48, "doc_stride": 16})
    )
    labelled = set()
    for window, (start, end) in zip(examples.info, examples.labels, strict=True):
        if end:
            spans = window.spans[start - window.first : end + 1 - window.first]
            text = window.question.context[spans[0, 0] : spans[-1, 1]]
            assert text.strip() == rows.labels[window.row][0].text
            labelled.add(window.row)
    assert len(labelled) >= sum(map(bool, rows.labels)) - 2
    assert labelled <= {i for i, answers in enumerate(rows.labels) if answers}


@pytest.mark.parametrize("side", ["right", "left"])
def test_contexts_by_themselves_give_what_the_library_gives_of_pairs(tokenizer, side, tmp_path):
    config = tokenizer.special | {"truncation_side": side}
    tokenizer = FileTokenizer(tokenizer.backend_tokenizer, config)
    limits, questions = window_arrays.Limits(32, 12, 9), make_rows(1, 60).inputs
    expected = window_arrays._by_library(tokenizer, questions, limits)
    way = window_arrays._choose_way(tokenizer, questions, limits)
    assert len(way(questions).context_sizes) == len({q.context for q in questions})
    assert window_arrays._is_same(way(questions), expected)
    assert not window_arrays._is_same(way(questions[:-1]), expected)


def test_a_context_is_tokenized_once(bert, monkeypatch):
    context = "the river is not good " * 20
    rows = Rows([Question(f"q{i}", "is it", context) for i in range(200)], None)
    asked, encode = [], FileTokenizer.encode
    monkeypatch.setattr(
        FileTokenizer,
        "encode",
        lambda self, texts, **more: asked.extend(texts) or encode(self, texts, **more),
    )
    examples, _ = windows.encode(rows, bert, FORTY)
    assert len(examples.info) > 1000
    assert asked.count(context) <= 3  # by itself, and for those by which this has to prove itself


def test_what_is_held_grows_with_the_tokens(bert):
    """Two bytes a token and one of its type; six numbers a window; two a token of a context."""
    rows = make_rows(0, 300)
    rows = Rows(rows.inputs * 20, rows.labels * 20)
    tracemalloc.start()
    examples, _ = windows.encode(rows, bert, FORTY)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tokens, count = len(examples.tokens.input_ids), len(examples.info)
    contexts = len(examples.info.arrays.spans) // 2
    assert held < 3 * tokens + (6 * 4 + 4 * 8) * count + 8 * contexts + (1 << 19)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_second_time_is_read(bert, tmp_path, monkeypatch, labelled):
    rows = make_rows(0)
    rows = rows if labelled else rows._replace(labels=None)
    expected, expected_notes = windows.encode(rows, bert, FORTY)
    parts, asked = window_arrays.parts, []

    def count(tokenizer, questions, *rest):
        asked.append(len(questions))
        return parts(tokenizer, questions, *rest)

    monkeypatch.setattr(window_arrays, "parts", count)
    encode = keeping(TASKS["question_answering"], tmp_path).data.encode
    for _ in range(2):
        found, notes = encode(rows, bert, FORTY)
        assert notes == expected_notes
        for one, other in zip(found.info.arrays, expected.info.arrays, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(found.labels, expected.labels)
        for one, other in zip(found.info, expected.info, strict=True):
            assert one._replace(spans=one.spans.tolist()) == other._replace(
                spans=other.spans.tolist()
            )
    assert asked == [30]
    (file,) = tmp_path.glob("*/starts.bin")
    file.unlink()
    encode(rows, bert, FORTY)
    moved = rows._replace(inputs=[*rows.inputs[1:], rows.inputs[0]])
    encode(moved, bert, FORTY)
    encode(rows, bert, from_dict(DataSettings, {"max_length": 40, "doc_stride": 9}))
    assert asked == [30] * 4


def test_windows_overlap_by_the_stride_and_cover_the_context(bert):
    context = " ".join(random.Random(0).choices(["river", "good", "day"], k=200))
    rows = Rows([Question("a", "is it", context)], None)
    examples, notes = windows.encode(
        rows, bert, from_dict(DataSettings, {"max_length": 32, "doc_stride": 10})
    )
    spans = [window.spans.tolist() for window in examples.info]
    for one, two in pairwise(spans):
        assert one[-10:] == two[:10]
    assert spans[0][0][0] == 0
    assert spans[-1][-1][1] == len(context)
    assert notes == [f"1 questions make {len(spans)} windows of at most 32 tokens, which share 10"]


def test_an_answer_at_an_edge_is_in_the_windows_that_hold_all_of_it(bert):
    """Of 19 words from token 6 on, 16 fit, and the windows share 4: 0 to 16, and 12 to 19."""
    words = ["good", "bad", "great", "poor"] * 5
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])

    def labels(first, last):
        text = " ".join(words[first : last + 1])
        question = Question("a", "is it", " ".join(words[:19]))
        rows = Rows([question], [(Answer(text, int(starts[first])),)])
        examples, notes = windows.encode(
            rows, bert, from_dict(DataSettings, {"max_length": 22, "doc_stride": 4})
        )
        assert [len(window.spans) for window in examples.info] == [17, 6]
        assert any("wholly in no window" in note for note in notes) == (not examples.labels.any())
        return examples.labels.tolist()

    assert labels(0, 0) == [[4, 4], [0, 0]]
    assert labels(11, 12) == [[15, 16], [0, 0]]
    assert labels(13, 16) == [[17, 20], [4, 7]]
    assert labels(16, 17) == [[0, 0], [7, 8]]
    assert labels(12, 17) == [[0, 0], [0, 0]]
    assert labels(18, 18) == [[0, 0], [9, 9]]


def test_token_types_are_0_for_the_question_and_1_for_the_context(bert):
    examples, _ = windows.encode(make_rows(0), bert, FORTY)
    for i, window in enumerate(examples.info):
        start, stop = examples.tokens.offsets[i : i + 2]
        types = examples.tokens.token_type_ids[start:stop]
        assert types.tolist() == [0] * window.first + [1] * (len(window.spans) + 1)


def test_a_part_of_a_word_is_labelled_by_the_tokens_that_it_touches(bert):
    # Each letter of a word that is not in the vocabulary is a token.
    rows = Rows([Question("a", "is it", "very abcdef film")], [(Answer("cd", 7),)])
    examples, _ = windows.encode(rows, bert, FORTY)
    start, end = examples.labels[0] - examples.info[0].first
    assert examples.info[0].spans[[start, end]].tolist() == [[7, 8], [8, 9]]
    rows = Rows([Question("a", "is it", "a good film")], [(Answer("oo", 3),)])
    examples, _ = windows.encode(rows, bert, FORTY)
    start, end = examples.labels[0] - examples.info[0].first
    assert examples.info[0].spans[[start, end]].tolist() == [[2, 6], [2, 6]]


def test_the_first_of_several_answers_is_the_label(bert):
    answers = (Answer("film", 7), Answer("good", 2))
    rows = Rows([Question("a", "is it", "a good film")], [answers])
    examples, _ = windows.encode(rows, bert, FORTY)
    assert examples.labels.tolist() == [[6, 6]]
    assert examples.info[0].answers == answers


def test_unlabelled_rows_have_what_decoding_needs(bert):
    rows = make_rows(0)
    settings = FORTY
    labelled, _ = windows.encode(rows, bert, settings)
    examples, _ = windows.encode(rows._replace(labels=None), bert, settings)
    assert examples.labels is None
    for one, two in zip(labelled.info, examples.info, strict=True):
        assert one.spans.tolist() == two.spans.tolist()
        assert two.answers is None
        assert one._replace(answers=None, spans=None) == two._replace(spans=None)
    batch = examples.collate(BatchIndex(np.arange(2), 40), 2)
    assert "labels" not in batch


@pytest.mark.parametrize("allowed", [None, True, False])
def test_rules_come_from_the_settings_and_the_training_data(bert, allowed):
    answers = AnswerSettings(8, 7, 3, no_answer_threshold=-1.5, allow_no_answer=allowed)
    settings = dataclasses.replace(FORTY, answers=answers)
    rows = make_rows(0)
    examples, _ = windows.encode(rows, bert, settings)
    for window in examples.info:
        may = rows.inputs[window.row].may_lack_answer if allowed is None else allowed
        assert window.rules == AnswerSettings(8, 7, 3, -1.5, may)


def test_batches_have_a_label_for_each_window(bert):
    examples, _ = windows.encode(make_rows(0), bert, FORTY)
    batch = examples.collate(BatchIndex(np.array([3, 1]), 40), 4)
    assert batch["labels"].tolist() == [*examples.labels[[3, 1]].tolist(), [0, 0], [0, 0]]
    assert batch["weight"].tolist() == [1, 1, 0, 0]


# --- What does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "cut"), [(11, False), (12, True), (300, True)])
def test_a_long_question_is_cut_and_leaves_room_for_the_context(bert, words, cut):
    """Of 40 tokens 3 are special, 8 shared, and 10 more at least are new in each window."""
    rows = Rows([Question("a", " ".join(["good"] * (words + 8)), "bad day " * 30)], None)
    examples, notes = windows.encode(rows, bert, FORTY)
    assert ("1 of 1 questions are longer than 19 tokens and were cut" in notes) is cut
    assert examples.info[0].first == 2 + 19
    assert examples.info[0].question == rows.inputs[0]  # records show it whole
    assert len(examples.info[0].spans) == 18
    assert len(examples.info) == 1 + -(-(60 - 18) // 10)


@pytest.mark.parametrize("word", ["🙂", "good", "Zürich"])
def test_a_cut_question_never_takes_more_than_its_share(tokenizer, word):
    rows = Rows([Question("a", f"{word} " * 50, "bad day " * 30)], None)
    examples, notes = windows.encode(rows, tokenizer, FORTY)
    assert len(notes) == 2
    assert min(len(window.spans) for window in examples.info[:-1]) >= 18
    assert examples.lengths.max() == 40


def test_white_space_around_a_question_takes_no_room(tokenizer):
    rows = [Rows([Question("a", text, "bad day")], None) for text in ("is it", "  \n is it \n ")]
    settings = FORTY
    plain, spaced = (windows.encode(part, tokenizer, settings)[0] for part in rows)
    assert plain.tokens.input_ids.tolist() == spaced.tokens.input_ids.tolist()


@pytest.mark.parametrize(("max_length", "stride"), [(12, 6), (16, 12), (3, 0)])
def test_no_room_for_a_question(bert, max_length, stride):
    settings = from_dict(DataSettings, {"max_length": max_length, "doc_stride": stride})
    with pytest.raises(UserError) as caught:
        windows.encode(make_rows(0), bert, settings)
    for part in (f"config.data.max_length is {max_length}", f"doc_stride {stride}", "3 special"):
        assert part in str(caught.value)


def test_a_context_without_tokens(bert):
    rows = Rows([Question("a", "is it", "\u200b"), Question("b", "is it", "\u200b")], [(), ()])
    rows.labels[1] = (Answer("\u200b", 0),)
    examples, notes = windows.encode(rows, bert, FORTY)
    assert [window.spans.shape for window in examples.info] == [(0, 2), (0, 2)]
    assert examples.labels.tolist() == [[0, 0], [0, 0]]
    assert notes == ["1 of 2 answers are wholly in no window; raise doc_stride"]


def test_nothing_is_left_behind(bert):
    windows.encode(make_rows(0), bert, FORTY)
    assert bert.backend_tokenizer.truncation is None
    assert bert.backend_tokenizer.padding is None


def test_nothing_depends_on_the_rest_of_the_rows(bert):
    rows, settings = make_rows(0), FORTY
    examples, _ = windows.encode(rows, bert, settings)
    alone = [
        windows.encode(Rows([q], [a]), bert, dataclasses.replace(settings))[0]
        for q, a in zip(rows.inputs, rows.labels, strict=True)
    ]
    ids = np.concatenate([e.tokens.input_ids for e in alone])
    assert ids.tolist() == examples.tokens.input_ids.tolist()
    assert np.concatenate([e.labels for e in alone]).tolist() == examples.labels.tolist()
