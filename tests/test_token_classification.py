"""Token classification: which tokens count, which entities are counted, and how entities read."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.layout import Layout
from jaxtune.data.sources.rows import Rows, class_order
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.data.text.word_tokens import encode
from jaxtune.data.text.words import Tags, from_words, split_words
from jaxtune.run.evaluate import all_scores, predict_all
from jaxtune.settings import LossSettings
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks.token_classification import TOKEN_CLASSIFICATION as TASK

NAMES = ("O", "B-x", "B-y-z", "I-x", "I-y-z")


@pytest.fixture(scope="module")
def tokenizer(request):
    return load_tokenizer(request.path.parent / "golden" / "bert" / "odd")


@pytest.fixture(scope="module")
def make(tokenizer):
    """A function from sentences and tags to examples; without tags they are unlabelled."""

    def make(sentences, gold=None, names=NAMES, max_length=32):
        rows = Rows([from_words(words) for words in sentences], None)
        if gold is not None:
            known = dict(enumerate(names))
            classes = [np.array([names.index(tag) for tag in part], np.int32) for part in gold]
            rows = rows._replace(labels=[Tags(part, known) for part in classes])
        return encode(rows, tokenizer, from_dict(DataSettings, {"max_length": max_length}))[0]

    return make


def logits_of(examples, guesses, names=NAMES):
    """Logits that predict the tags: the first token of a word has its own, others anything."""
    rng = np.random.default_rng(0)
    outputs = []
    for length, words, guess in zip(examples.lengths, examples.info, guesses, strict=True):
        logits = rng.normal(size=(length, len(names))).astype(np.float32)
        for token, tag in zip(words.tokens, guess, strict=True):
            if token >= 0:
                logits[token, names.index(tag)] = 9.0
        outputs.append(logits)
    return outputs


def scores(make, gold, guesses, names=NAMES):
    sentences = [["loved"] * len(part) for part in gold]  # each word has two tokens
    examples = make(sentences, gold, names)
    return TASK.scores.compute({}, logits_of(examples, guesses, names), examples)


def chunks(tags):
    """Entities of well-formed BIO tags, by a regex over their letters."""
    letters = "".join(tag[0] for tag in tags)
    return {(tags[m.start()][2:], *m.span()) for m in re.finditer("BI*", letters)}


def well_formed(rng, length):
    tags = ["O"]
    while len(tags) <= length:
        kinds = ["O", "B-x", "B-y-z"]
        tags.append(rng.choice(kinds if tags[-1] == "O" else [*kinds, f"I-{tags[-1][2:]}"]))
    return tags[1:]


# --- Scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_sets_of_entities(make, seed):
    rng = np.random.default_rng(seed)
    gold = [well_formed(rng, n) for n in rng.integers(1, 9, 12)]
    guesses = [part if rng.random() < 0.4 else well_formed(rng, len(part)) for part in gold]
    right, found = ({(i, *c) for i, p in enumerate(s) for c in chunks(p)} for s in (gold, guesses))
    precision, recall = len(right & found) / len(found), len(right & found) / len(right)
    flat = [a == b for s, t in zip(gold, guesses, strict=True) for a, b in zip(s, t, strict=True)]
    assert 0 < precision < 1
    assert scores(make, gold, guesses) == pytest.approx(
        {
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "accuracy": np.mean(flat),
        }
    )


@pytest.mark.parametrize(
    ("gold", "guess", "precision", "recall"),
    [
        (["B-x", "I-x", "O"], ["I-x", "I-x", "O"], 1, 1),  # conlleval: an I- may begin an entity
        (["B-x", "I-x", "O"], ["B-x", "O", "O"], 0, 0),  # a part is not it
        (["B-x", "I-x", "O"], ["B-x", "I-y-z", "O"], 0, 0),
        (["B-x", "B-x", "O"], ["B-x", "I-x", "O"], 0, 0),
        (["B-x", "O", "B-x"], ["B-x", "O", "O"], 1, 0.5),
        (["O", "O"], ["B-x", "O"], 0, 0),
        (["B-x", "O"], ["O", "O"], 0, 0),
        (["O", "O"], ["O", "O"], 0, 0),
    ],
)
def test_what_counts_as_right(make, gold, guess, precision, recall):
    found = scores(make, [gold], [guess])
    f1 = 2 * precision * recall / (precision + recall) if precision else 0
    accuracy = np.mean([a == b for a, b in zip(gold, guess, strict=True)])
    expected = {"f1": f1, "precision": precision, "recall": recall, "accuracy": accuracy}
    assert found == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_an_entity_does_not_go_on_in_the_next_sentence(make):
    assert scores(make, [["O", "B-x"], ["I-x"]], [["O", "B-x"], ["B-x"]])["f1"] == 1.0


def test_bioes_and_plain_tags(make):
    names = ("O", "B-x", "E-x", "I-x", "S-x")
    gold = ["B-x", "I-x", "E-x", "S-x", "S-x"]
    found = scores(make, [gold], [["B-x", "I-x", "E-x", "S-x", "B-x"]], names)
    assert (found["f1"], found["accuracy"]) == (1.0, 0.8)
    assert scores(make, [gold], [["B-x", "I-x", "I-x", "I-x", "O"]], names)["recall"] == 0.0
    plain = ("O", "B", "x-y")  # B is a name here, as x-y has no prefix
    gold = ["x-y", "x-y", "O", "B", "x-y"]
    assert scores(make, [gold], [gold], plain)["f1"] == 1.0
    found = scores(make, [gold], [["x-y", "O", "O", "B", "x-y"]], plain)
    assert found["f1"] == pytest.approx(2 / 3)


def test_words_without_a_token_count_as_outside(make):
    gold = [["B-x", "B-x", "O", "B-x", "O"], ["B-x"]]
    words = [["loved", "\u200b", "\ufeff", "cat", "dog"], ["\u200b"]]
    examples = make(words, gold, max_length=4)
    assert [part.tokens.tolist() for part in examples.info] == [[1, -1, -1, -1, -1], [-1]]
    found = TASK.scores.compute({}, logits_of(examples, gold), examples)
    assert found == pytest.approx({"precision": 1, "recall": 0.25, "f1": 0.4, "accuracy": 3 / 6})


def test_scores_are_the_same_in_the_models_order_of_classes_and_with_classes_of_its_own(make):
    gold, guess = [["B-x", "I-x", "O", "B-y-z"]], [["B-x", "I-x", "B-y-z", "O"]]
    model = ("I-y-z", "O", "B-w", "I-x", "B-y-z", "B-x", "I-w")
    examples = make([["dog"] * 4], gold)
    labels = [part.tags for part in examples.info]
    moved = TASK.data.reorder(labels, class_order(NAMES, model))
    assert [model[c] for c in moved[0].classes] == gold[0]
    info = [part._replace(tags=tags) for part, tags in zip(examples.info, moved, strict=True)]
    fresh = examples._replace(info=info)
    expected = TASK.scores.compute({}, logits_of(examples, guess), examples)
    assert TASK.scores.compute({}, logits_of(fresh, guess, model), fresh) == expected
    found = TASK.scores.compute({}, logits_of(fresh, [["B-x", "I-x", "B-w", "O"]], model), fresh)
    assert found == expected  # an entity of a type that the data does not have is wrong
    assert expected["precision"] == 0.5


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_scores_and_losses_do_not_depend_on_batches(make, batch_size):
    rng = np.random.default_rng(3)
    gold = [well_formed(rng, n) for n in rng.integers(1, 12, 13)]
    examples = make([["loved"] * len(part) for part in gold], gold)
    table = jnp.asarray(rng.normal(size=(64, len(NAMES))), jnp.bfloat16)

    def step(batch):
        place = jnp.arange(batch["input_ids"].shape[1])
        outputs = table[place % 7] + table[batch["input_ids"] % 64]
        return TASK.loss.metrics(outputs, batch), TASK.output.fetch(outputs, batch)

    step = jax.jit(step)
    layout = Layout("bucketed", batch_size, (8, 32))
    means, outputs = predict_all(step, examples, layout, per_token=TASK.output.per_token)
    assert [len(part) for part in outputs] == examples.lengths.tolist()
    assert outputs[0].dtype == np.float32
    losses, guesses = [], []
    for logits, words in zip(outputs, examples.info, strict=True):
        rows = log_softmax(logits.astype(np.float64), axis=1)[words.tokens]
        losses += (-rows[np.arange(len(rows)), words.tags.classes]).tolist()
        guesses.append([NAMES[c] for c in rows.argmax(1)])
    assert means["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    found = all_scores(TASK, means, outputs, examples)
    assert set(found) == set(TASK.scores.higher_is_better)
    assert found["accuracy"] == pytest.approx(
        np.mean(
            [a == b for s, t in zip(gold, guesses, strict=True) for a, b in zip(s, t, strict=True)]
        )
    )


# --- Loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.2},
        {"focal_gamma": 2.0},
        {"class_weights": ("B-x=3", "O=0.5")},
        {"class_weights": ("balanced",), "label_smoothing": 0.1, "focal_gamma": 1.0},
    ],
)
def test_only_first_tokens_count_in_the_loss(make, options):
    gold = [["B-x", "I-x", "O"], ["O", "B-y-z"]]
    examples = make([["loved", "dog", "loved"], ["\u200b", "cat"]], gold)
    loss_fn = TASK.loss.make(LossSettings(**options), NAMES, examples.labels)
    batch = examples.collate(BatchIndex(np.arange(2), 12), 3)
    logits = np.random.default_rng(0).normal(size=(3, 12, len(NAMES))).astype(np.float32)
    loss = loss_fn(jnp.asarray(logits), batch)
    scored = [(0, 1, 1), (0, 3, 3), (0, 4, 0), (1, 1, 2)]  # row, token, class
    counts = np.array([1, 1, 1, 1, 0])
    weights = {
        (): np.ones(5),
        ("B-x=3", "O=0.5"): np.array([0.5, 3, 1, 1, 1]),
        ("balanced",): 4 / (5 * np.maximum(counts, 1)),
    }[options.get("class_weights", ())]
    total = 0.0
    for row, token, c in scored:
        log_p = log_softmax(logits[row, token].astype(np.float64))
        s = options.get("label_smoothing", 0.0)
        target = (1 - s) * np.eye(5)[c] + s / 5
        focal = (1 - np.exp(log_p[c])) ** options.get("focal_gamma", 0.0)
        total -= weights[c] * focal * (target @ log_p)
    np.testing.assert_allclose(loss.total, total, rtol=1e-5)
    np.testing.assert_allclose(loss.weight, sum(weights[c] for _, _, c in scored), rtol=1e-6)
    ignored = np.where(batch["weight"] > 0, batch["labels"], -100)  # transformers' own
    assert loss_fn(jnp.asarray(logits), batch | {"labels": ignored}) == loss
    gradient = jax.grad(lambda z: loss_fn(z, batch).total)(jnp.asarray(logits))
    assert np.isfinite(gradient).all()
    used = np.abs(gradient).max(axis=-1) > 0
    assert set(zip(*np.nonzero(used), strict=True)) == {(row, token) for row, token, _ in scored}


def test_a_batch_without_a_scored_token_has_no_weight(make):
    examples = make([["\u200b"]], [["B-x"]])
    batch = examples.collate(BatchIndex(np.arange(1), 8), 2)
    loss = TASK.loss.make(LossSettings(), NAMES, examples.labels)(jnp.ones((2, 8, 5)), batch)
    assert float(loss.weight) == float(loss.total) == 0.0


def test_class_weights_name_tags(make):
    examples = make([["dog"]], [["B-x"]])
    with pytest.raises(UserError, match=r"names the class 'B-w'.*Nearest: B-x"):
        TASK.loss.make(LossSettings(class_weights=("B-w=2",)), NAMES, examples.labels)


# --- Decoding -------------------------------------------------------------------------------


def test_entities_of_words(make):
    sentences = [["New", "loved", "is", "New", "York"], ["\u200b", "the"]]
    guess = [["B-x", "I-x", "O", "B-x", "B-y-z"], ["O", "O"]]
    examples = make(sentences)
    outputs = logits_of(examples, guess)
    first, second = TASK.output.decode(outputs, examples, NAMES)
    best = softmax(outputs[0].astype(np.float64), axis=1).max(axis=1)[examples.info[0].tokens]
    text = "New loved is New York"
    assert first["text"] == text
    assert first["tags"] == guess[0]
    expected = [("x", 0, 9, [0, 1]), ("x", 13, 16, [3]), ("y-z", 17, 21, [4])]
    assert first["entities"] == [
        {
            "label": label,
            "start": start,
            "end": end,
            "text": text[start:end],
            "score": pytest.approx(best[words].mean(), rel=1e-12),
        }
        for label, start, end, words in expected
    ]
    words = [[0, 1], [2, 5]]
    assert second == {"entities": [], "tags": ["O", "O"], "words": words, "text": "\u200b the"}


def test_offsets_are_those_of_the_text_as_it_was(tokenizer):
    text = "\U0001f600  the  New\tYork, is"
    rows = Rows([split_words(text)], None)
    examples, _ = encode(rows, tokenizer, from_dict(DataSettings, {"max_length": 32}))
    guess = [["O", "O", "x", "x", "O", "y"]]
    names = ("O", "x", "y")
    (record,) = TASK.output.decode(logits_of(examples, guess, names), examples, names)
    assert record["text"] == text
    spans = [(entity["label"], entity["start"], entity["end"]) for entity in record["entities"]]
    assert spans == [("x", 8, 16), ("y", 18, 20)]
    assert [entity["text"] for entity in record["entities"]] == ["New\tYork", "is"]


def test_a_word_without_a_token_ends_an_entity(make):
    examples = make([["dog", "\u200b", "cat", "ran"]], max_length=4)
    (record,) = TASK.output.decode(
        logits_of(examples, [["B-x", "I-x", "I-x", "I-x"]]), examples, NAMES
    )
    assert record["tags"] == ["B-x", "O", "I-x", "O"]
    assert [entity["text"] for entity in record["entities"]] == ["dog", "cat"]


def test_large_logits_have_finite_scores(make):
    examples = make([["dog"]])
    outputs = [np.full((3, 5), -1e30, np.float32)]
    outputs[0][1, 1] = 1e30
    (record,) = TASK.output.decode(outputs, examples, NAMES)
    assert record["entities"][0]["score"] == 1.0
