"""Answers and scores against plain Python: loops over all spans, and SQuAD's own definition."""

import collections
import dataclasses
import importlib.util
import itertools
import json
import math
import random
import re
import string
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.batching import batches
from jaxtune.data.batching.layout import Layout
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import windows
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.squad import Answer, Question
from jaxtune.data.text.tokens import Tokens, load_tokenizer
from jaxtune.data.text.windows import Window
from jaxtune.models.pretrained import load_pretrained
from jaxtune.run.config import validate
from jaxtune.run.evaluate import predict_all
from jaxtune.settings import LossSettings, ModelSettings, Settings
from jaxtune.settings.data import AnswerSettings, DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks import question_answering as qa
from jaxtune.tasks import spans
from jaxtune.tasks.question_answering import QUESTION_ANSWERING
from jaxtune.training.eval_step import make_eval_step

SCORER = Path(__file__).parents[1] / "benchmarks" / "squad_scores.py"
RULES = AnswerSettings(max_answer_length=4, n_best=5, allow_no_answer=True)


def make_windows(rng, row, rules, answers=(), stride=3, size=8, count=20):
    """Windows of `size` words on a context of `count` words."""
    words = [rng.choice(["ab", "c", "ü", "🙂", "the", "x-y"]) for _ in range(count)]
    context = " ".join(words)
    starts = list(itertools.accumulate((len(word) + 1 for word in words), initial=0))
    # As byte-level tokenizers have it: a word with the space before it.
    tokens = [(max(s - 1, 0), s + len(word)) for s, word in zip(starts, words, strict=False)]
    question = Question(f"q{row}", "what?", context)
    found = []
    for start in range(0, max(count - stride, 1), size - stride):
        spans_ = np.array(tokens[start : start + size], np.int32).reshape(-1, 2)
        found.append(Window(row, question, answers, rng.randint(1, 4), spans_, rules))
    return found


def make_logits(rng, group, integers=False):
    """Logits of a window's tokens: of the question, of the context and one at the end."""
    draw = (lambda: rng.randint(-2, 2)) if integers else (lambda: rng.gauss(0, 2))
    return [
        np.array([[draw(), draw()] for _ in range(w.first + len(w.spans) + 1)], np.float32)
        for w in group
    ]


def all_spans(window, logits):
    """(score, characters) of every allowed span of a window, in the order of the text."""
    found = []
    for i in range(len(window.spans)):
        for j in range(i, len(window.spans)):
            if j - i + 1 <= window.rules.max_answer_length:
                start, end = int(window.spans[i][0]), int(window.spans[j][1])
                while start < end and window.question.context[start].isspace():
                    start += 1
                while end > start and window.question.context[end - 1].isspace():
                    end -= 1
                score = float(logits[window.first + i][0]) + float(logits[window.first + j][1])
                found.append((score, start, end))
    return sorted(found, key=lambda item: -item[0])


def reference(group, logits):
    """(answer, null score minus best score, n best) by loops."""
    rules, context = group[0].rules, group[0].question.context
    best = {}
    for window, values in zip(group, logits, strict=True):
        for score, start, end in all_spans(window, values)[: rules.n_best]:
            if context[start:end]:
                best[start, end] = max(best.get((start, end), -math.inf), score)
    ordered = sorted(best.items(), key=lambda item: (-item[1], item[0]))[: rules.n_best]
    null = min(float(values[0][0]) + float(values[0][1]) for values in logits)
    if not ordered:
        return "", None, [(0, 0)]
    margin = null - ordered[0][1]
    (start, end), _ = ordered[0]
    answer = context[start:end]
    if rules.allow_no_answer:
        answer = "" if margin > rules.no_answer_threshold else answer
        ordered = sorted([*ordered, ((0, 0), null)], key=lambda item: -item[1])
    return answer, margin, [span for span, _ in ordered]


def examples_of(found):
    tokens = Tokens(np.zeros(0), np.zeros(0), np.zeros(len(found) + 1))
    return Examples(tokens, info=found)


def decode(found, logits):
    return qa.decode(logits, examples_of(found), ())


# --- Answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("integers", [True, False])  # whole numbers are often equal
@pytest.mark.parametrize(("longest", "n_best"), [(4, 5), (1, 3), (100, 1), (3, 1000)])
def test_answers_are_those_of_loops_over_all_spans(seed, allowed, integers, longest, n_best):
    rng = random.Random(seed)
    rules = AnswerSettings(0, longest, n_best, rng.gauss(0, 2), allowed)
    groups = [make_windows(rng, row, rules, count=rng.randint(1, 25)) for row in range(6)]
    logits = [make_logits(rng, group, integers) for group in groups]
    records = decode([w for g in groups for w in g], [x for values in logits for x in values])
    assert len(records) == 6
    for group, values, record in zip(groups, logits, records, strict=True):
        answer, margin, places = reference(group, values)
        assert record["id"] == group[0].question.id
        assert record["answer"] == answer
        assert record["no_answer_score"] == pytest.approx(margin, abs=1e-5)
        assert [(e["start"], e["end"]) for e in record["n_best"]] == places


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("allowed", [True, False])
def test_what_a_record_says_fits_together(seed, allowed):
    rng = random.Random(seed)
    found = make_windows(rng, 0, dataclasses.replace(RULES, allow_no_answer=allowed))
    logits = make_logits(rng, found)
    (record,) = json.loads(json.dumps(decode(found, logits), allow_nan=False))
    assert set(record) == {"id", "answer", "score", "start", "end", "no_answer_score", "n_best"}
    context = found[0].question.context
    chosen = {name: record[name] for name in ("answer", "score", "start", "end")}
    assert chosen in record["n_best"]
    assert chosen == record["n_best"][0]  # the threshold is 0
    for entry in record["n_best"]:
        assert context[entry["start"] : entry["end"]] == entry["answer"] == entry["answer"].strip()
    probabilities = [entry["score"] for entry in record["n_best"]]
    assert sum(probabilities) == pytest.approx(1.0)
    assert probabilities == sorted(probabilities, reverse=True)
    assert ("" in [entry["answer"] for entry in record["n_best"]]) == allowed
    scores = {(0, 0): min(float(values[0].sum()) for values in logits)}
    for window, values in zip(found, logits, strict=True):
        for score, *place in all_spans(window, values):
            scores[tuple(place)] = max(scores.get(tuple(place), -math.inf), score)
    for one, two in itertools.pairwise(record["n_best"]):  # probabilities follow the scores
        gap = scores[one["start"], one["end"]] - scores[two["start"], two["end"]]
        assert math.log(one["score"] / two["score"]) == pytest.approx(gap, abs=1e-4)


def one_window(start, end, rules=RULES, context="ab cd", tokens=((0, 2), (2, 5))):
    question = Question("a", "what?", context)
    window = Window(0, question, None, 1, np.array(tokens, np.int32).reshape(-1, 2), rules)
    return [window], [np.array([start, end], np.float32).T]


@pytest.mark.parametrize(
    ("threshold", "allowed", "answer"),
    [(0.0, True, ""), (2.9, True, ""), (3.0, True, "cd"), (0.0, False, "cd"), (-9.0, False, "cd")],
)
def test_the_threshold_on_no_answer(threshold, allowed, answer):
    """The null score is 2 + 2, that of `cd` is 0 + 1."""
    rules = AnswerSettings(0, 4, 5, threshold, allowed)
    (record,) = decode(*one_window([2, -1, 0], [2, -1, 1], rules))
    assert record["answer"] == answer
    assert record["no_answer_score"] == 3.0


def test_the_null_score_is_the_least_of_the_windows():
    found, logits = one_window([9, 0, 0], [9, 0, 0])
    other, values = one_window([1, -5, -5], [-3, -5, -5])
    (record,) = decode(found + other, logits + values)
    assert record["no_answer_score"] == -2.0
    assert record["answer"] == "ab"


def test_the_space_before_a_word_is_no_part_of_an_answer():
    (record,) = decode(*one_window([0, 0, 9], [0, 0, 9]))
    assert (record["answer"], record["start"], record["end"]) == ("cd", 3, 5)


def test_a_token_of_nothing_but_white_space_is_no_answer():
    tokens = ((0, 2), (2, 3), (3, 5))
    found = one_window(
        [0, 0, 9, 0], [0, 0, 9, 0], dataclasses.replace(RULES, n_best=1), tokens=tokens
    )
    (record,) = decode(*found)
    assert [entry["answer"] for entry in record["n_best"]] == [""]
    assert record["no_answer_score"] is None


def test_several_tokens_of_one_character_give_one_answer():
    tokens = ((0, 1), (0, 1), (0, 1), (0, 1))
    found = one_window([-9, 1, 2, 3, 0], [-9, 0, 1, 5, 2], context="🙂", tokens=tokens)
    (record,) = decode(*found)
    assert [entry["answer"] for entry in record["n_best"]] == ["🙂", ""]
    assert record["no_answer_score"] == -18.0 - 8.0


@pytest.mark.parametrize("allowed", [True, False])
def test_a_context_without_tokens_has_no_answer(allowed):
    rules = dataclasses.replace(RULES, allow_no_answer=allowed)
    (record,) = decode(*one_window([1, 1], [1, 1], rules, context="\u200b", tokens=()))
    assert record["answer"] == ""
    assert record["no_answer_score"] is None
    assert record["n_best"] == [{"answer": "", "score": 1.0, "start": 0, "end": 0}]


def test_outputs_that_are_not_finite_are_no_crash():
    found, logits = one_window([0, 1, 2], [0, 1, 2])
    (record,) = decode(found, [np.full_like(logits[0], np.nan)])
    assert record["answer"] == ""


def test_large_logits_have_probabilities():
    (record,) = decode(*one_window([-3e38, 3e38, 0], [-3e38, 3e38, 0]))
    assert record["score"] == 1.0


# --- Scores -----------------------------------------------------------------------------------


def official_scores(dataset, predictions):
    """(exact match, F1) of each question as SQuAD 2.0 defines them, written for this test."""

    def normal(text):
        text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    def f1(gold, predicted):
        gold, predicted = normal(gold).split(), normal(predicted).split()
        if not gold or not predicted:
            return int(gold == predicted)
        same = sum((collections.Counter(gold) & collections.Counter(predicted)).values())
        if same == 0:
            return 0
        precision, recall = same / len(predicted), same / len(gold)
        return 2 * precision * recall / (precision + recall)

    found = []
    for golds, predicted in zip(dataset, predictions, strict=True):
        golds = [gold for gold in golds if normal(gold)] or [""]
        exact = max(int(normal(gold) == normal(predicted)) for gold in golds)
        found.append((exact, max(f1(gold, predicted) for gold in golds)))
    return found


PIECES = [
    *("the", "The", "a", "an", "river", "Thames", "thames,", "(42)", "U.S.", "U.S", "is it?"),
    *("Ä", "don't", "dont", "'", "\u2013", "anthem", "the-river", "", "\u00a0", "river\tThames"),
]


@pytest.mark.parametrize("seed", range(5))
def test_exact_match_and_f1_are_those_of_squad(seed):
    rng = random.Random(seed)

    def text(longest):
        return " ".join(rng.choices(PIECES, k=rng.randint(0, longest)))

    dataset = [[text(4) for _ in range(rng.randint(0, 3))] for _ in range(300)]
    predictions = [rng.choice([text(4), *golds]) if rng.random() < 0.8 else "" for golds in dataset]
    expected = official_scores(dataset, predictions)
    assert [
        (qa.best_exact_match(*p), qa.best_f1(*p)) for p in zip(dataset, predictions, strict=True)
    ] == [pytest.approx(pair) for pair in expected]
    assert len({f1 for _, f1 in expected}) > 5
    questions = {str(i): golds for i, golds in enumerate(dataset)}
    found = scorer().evaluate(questions, {str(i): text for i, text in enumerate(predictions)})
    exact, f1 = np.mean(expected, axis=0)
    assert (found["exact"], found["f1"]) == pytest.approx((100 * exact, 100 * f1))


def scorer():
    spec = importlib.util.spec_from_file_location("squad_scores", SCORER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("golds", "predicted", "exact", "f1"),
    [
        ([], "", 1, 1),
        ([], "river", 0, 0),
        ([], "the", 1, 1),  # nothing is left of it
        (["river"], "", 0, 0),
        (["the"], "", 1, 1),
        (["river Thames"], "The Thames.", 0, 2 / 3),
        (["river Thames", "Thames"], "The Thames.", 1, 1),
        (["b b c"], "b c c", 0, 2 / 3),  # words count as often as they occur
        (["Ä\u2013B"], "ä\u2013b", 1, 1),
    ],
)
def test_scores_at_the_edges(golds, predicted, exact, f1):
    assert qa.best_exact_match(golds, predicted) == exact
    assert qa.best_f1(golds, predicted) == pytest.approx(f1)


def scored(seed, kinds):
    """Windows of random questions, their logits, and the scores that they should have."""
    rng = random.Random(seed)
    found, logits, golds, answers = [], [], [], []
    for row in range(30):
        context = make_windows(random.Random(row), row, RULES)[0].question.context
        words = rng.sample(context.split(), k=2)
        right = tuple(Answer(w, context.index(w)) for w in words) if rng.choice(kinds) else ()
        group = make_windows(random.Random(row), row, RULES, right)
        found += group
        values = make_logits(rng, group)
        logits += values
        golds.append([answer.text for answer in right])
        answers.append(reference(group, values)[0])
    return found, logits, golds, official_scores(golds, answers)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kinds", [(True, False), (True,), (False,)])
def test_scores_are_means_over_questions(seed, kinds):
    found, logits, golds, expected = scored(seed, kinds)
    scores = qa.scores({}, logits, examples_of(found))
    exact, f1 = (np.array(column) for column in zip(*expected, strict=True))
    wanted = {"exact_match": exact.mean(), "f1": f1.mean()}
    if len(kinds) == 2:
        has = np.array([bool(answers) for answers in golds])
        wanted |= {"has_answer_f1": f1[has].mean(), "no_answer_f1": f1[~has].mean()}
    assert scores == pytest.approx(wanted)
    assert all(type(value) is float for value in scores.values())
    assert QUESTION_ANSWERING.scores.best in scores


@pytest.mark.parametrize("kinds", [(True, False), (True,)])
def test_the_stand_alone_scorer_agrees(tmp_path, kinds):
    found, logits, golds, _ = scored(0, kinds)
    scores = qa.scores({}, logits, examples_of(found))
    questions = {w.row: w.question for w in found}.values()
    paragraphs = [
        {
            "context": q.context,
            "qas": [
                {
                    "id": q.id,
                    "answers": [{"text": t, "answer_start": q.context.index(t)} for t in texts],
                }
            ],
        }
        for q, texts in zip(questions, golds, strict=True)
    ]
    data, predictions = tmp_path / "dev.json", tmp_path / "answers.jsonl"
    data.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    lines = [json.dumps(record, ensure_ascii=False) for record in decode(found, logits)]
    predictions.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-IS", str(SCORER), f"--predictions={predictions}", f"--data={data}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    printed = dict(line.split() for line in output.splitlines())
    assert float(printed["exact"]) == pytest.approx(100 * scores["exact_match"], abs=1e-4)
    assert float(printed["f1"]) == pytest.approx(100 * scores["f1"], abs=1e-4)
    assert (printed["total"], printed["missing"]) == ("30", "0")
    assert ("HasAns_f1" in printed) == ("has_answer_f1" in scores)
    if "has_answer_f1" in scores:
        assert float(printed["HasAns_f1"]) == pytest.approx(100 * scores["has_answer_f1"], abs=1e-4)
        assert float(printed["NoAns_f1"]) == pytest.approx(100 * scores["no_answer_f1"], abs=1e-4)
    predictions.write_text("\n".join(lines[1:]))
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert dict(line.split() for line in output.splitlines())["missing"] == "1"


# --- Settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("doc_stride", -1, "at least 0"),
        ("doc_stride", 65, "at most half of max_length 128"),
        ("max_answer_length", 0, "at least 1"),
        ("n_best", 0, "at least 1"),
        ("max_length", 31, "at least 32 tokens"),
    ],
)
def test_settings_out_of_range(field, value, expected):
    data = from_dict(DataSettings, {"path": "squad", field: value})
    settings = Settings(task="question_answering", model=ModelSettings(path="m"), data=data)
    with pytest.raises(UserError, match=rf"^config\.data\.{field} is {value}: expected {expected}"):
        validate(settings)


def test_windows_limit_no_other_task():
    data = from_dict(DataSettings, {"path": "texts", "max_length": 16})
    validate(Settings(model=ModelSettings(path="m"), data=data))
    data = from_dict(DataSettings, {"path": "squad", "max_length": 128, "doc_stride": 64})
    validate(Settings(task="question_answering", model=ModelSettings(path="m"), data=data))


# --- With a model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_on():
    """Eight questions on four contexts, one of each pair without an answer; several windows."""
    golden = Path(__file__).parent / "golden"
    tokenizer = load_tokenizer(golden / "bert" / "odd")
    inputs, labels = [], []
    for i, word in enumerate(["river", "film", "car", "book"]):
        context = f"it was good and the day of {word} is great and {'that ' * (3 * i)}bad"
        inputs += [
            Question(f"{i}a", "is it", context, True),
            Question(f"{i}b", "not", context, True),
        ]
        labels += [(Answer(word, context.index(word)),), ()]
    settings = from_dict(DataSettings, {"max_length": 24, "doc_stride": 6})
    examples, _ = windows.encode(Rows(inputs, labels), tokenizer, settings)
    return examples


def evaluate(model, params, examples, batch_size, lengths):
    step = make_eval_step(
        model.apply_fn, QUESTION_ANSWERING.loss.metrics, QUESTION_ANSWERING.output.fetch
    )
    no_holes = jax.tree.map(lambda _: None, params)
    return predict_all(
        jax.jit(lambda batch: step(params, no_holes, batch)),
        examples,
        Layout("bucketed", batch_size, lengths),
        per_token=QUESTION_ANSWERING.output.per_token,
    )


def test_a_model_learns_where_answers_stand(trained_on):
    folder = Path(__file__).parent / "golden" / "bert" / "odd"
    model = load_pretrained(folder, head="span", num_outputs=2, key=jax.random.key(0))
    assert QUESTION_ANSWERING.output.num_outputs(None) == 2
    loss_fn = QUESTION_ANSWERING.loss.make(LossSettings(), (), trained_on.labels)
    index = batches.BatchIndex(np.arange(len(trained_on.lengths)), 24)
    batch = trained_on.collate(index, len(trained_on.lengths))
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        def loss(params):
            return loss_fn(model.apply_fn(params, batch, key=None, train=False), batch).value

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    params, state = model.params, tx.init(model.params)
    for _ in range(80):
        params, state, loss = step(params, state)
    means, outputs = evaluate(model, params, trained_on, 4, (24,))
    assert means["loss"] == pytest.approx(float(loss), abs=0.05)
    assert qa.scores(means, outputs, trained_on) == {
        "exact_match": 1.0, "f1": 1.0, "has_answer_f1": 1.0, "no_answer_f1": 1.0
    }  # fmt: skip
    records = qa.decode(outputs, trained_on, ())
    assert [record["answer"] for record in records] == [
        "river", "", "film", "", "car", "", "book", ""
    ]  # fmt: skip


@pytest.mark.parametrize(("batch_size", "lengths"), [(1, (24,)), (3, (16, 24))])
def test_scores_do_not_depend_on_batches_and_padding(trained_on, batch_size, lengths):
    folder = Path(__file__).parent / "golden" / "bert" / "odd"
    model = load_pretrained(folder, head="span", num_outputs=2, key=jax.random.key(0))
    expected = evaluate(model, model.params, trained_on, 5, (24,))
    means, outputs = evaluate(model, model.params, trained_on, batch_size, lengths)
    assert means["loss"] == pytest.approx(expected[0]["loss"], rel=1e-5)
    for one, two, length in zip(outputs, expected[1], trained_on.lengths, strict=True):
        assert one.shape == (length, 2)
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_loss_is_that_of_starts_and_ends(trained_on):
    """Over real tokens and real windows alone, in numpy."""
    index = batches.BatchIndex(np.arange(5), 24)
    batch = trained_on.collate(index, 8)
    outputs = np.random.default_rng(0).normal(size=(8, 24, 2)).astype(np.float32)
    losses = []
    for i in range(5):
        real = outputs[i, : trained_on.lengths[i]].astype(np.float64)
        for side in (0, 1):
            log_sum = np.log(np.exp(real[:, side]).sum())
            losses.append(log_sum - real[trained_on.labels[i, side], side])
    found = qa.batch_metrics(jnp.asarray(outputs), batch)["loss"]
    assert float(found.value) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(found.weight) == 5


def test_spans_of_a_window_come_best_first():
    found, logits = one_window([0, 3, 1], [0, 1, 2])
    best = list(spans.best_spans(logits[0], found[0]))
    assert [(span.start, span.end, span.score) for span in best] == [
        (0, 5, 5.0),
        (0, 2, 4.0),
        (3, 5, 3.0),
    ]
