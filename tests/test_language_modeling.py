"""Causal and masked language modelling against plain loops and float64."""

import dataclasses
import io
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file
from scipy.special import log_softmax
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex, choose_lengths
from jaxtune.data.batching.layout import Layout
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text.blocks import make_examples
from jaxtune.data.text.tokenizer_files import of_transformers
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.models.pretrained import load_pretrained
from jaxtune.run.config import validate
from jaxtune.run.console import Report
from jaxtune.run.evaluate import predict_all
from jaxtune.run.hooks import Moment, log
from jaxtune.run.progress import Progress
from jaxtune.settings import LossSettings, ModelSettings, Settings
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks import causal_lm, language_modeling, masked_lm
from jaxtune.tasks.causal_lm import CAUSAL_LM
from jaxtune.tasks.masked_lm import MASKED_LM

FAMILIES = Path(__file__).parent / "golden" / "families"
WORDS = ["the", "cat", "dog", "film", "is", "not", "very", "good", "bad", "old", "car", "book"]
END = len(WORDS)
TEXTS = ["the cat is old", "good", "the very very bad film is not the good book", "not a cat"]


@pytest.fixture(scope="module")
def gpt2():
    """A tokenizer of twelve words that has an end of text alone, as GPT-2's."""
    ids = {word: i for i, word in enumerate([*WORDS, "<|endoftext|>"])}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<|endoftext|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict.fromkeys(("eos_token", "bos_token", "unk_token", "pad_token"), "<|endoftext|>")
    return of_transformers(PreTrainedTokenizerFast(tokenizer_object=inner, **special))


@pytest.fixture(scope="module")
def bert(golden):
    return load_tokenizer(golden / "odd")


@pytest.fixture(scope="module")
def vocab(golden):
    words = (golden / "odd" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return {word: i for i, word in enumerate(words)}


def labelled(texts):
    return Rows(texts, np.zeros(len(texts), np.int32))


def spans(examples):
    return [slice(*ends) for ends in pairwise(examples.tokens.offsets)]


def ids_of(text):
    return [WORDS.index(word) if word in WORDS else END for word in text.split()]


# --- What is learnt: causal -------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [3, 5, 8, 19, 21, 50])
def test_causal_blocks_and_labels(gpt2, max_length):
    stream = []
    for i, text in enumerate(TEXTS):
        stream += ([END] if i else []) + ids_of(text)
    assert len(stream) == 21
    expected = [stream[i : i + max_length] for i in range(0, 21, max_length)]
    if len(expected[-1]) == 1:
        expected[-1] = stream[-2:]
    examples, notes = causal_lm.encode(
        labelled(TEXTS), gpt2, from_dict(DataSettings, {"max_length": max_length})
    )
    assert [examples.tokens.input_ids[span].tolist() for span in spans(examples)] == expected
    for span, block in zip(spans(examples), expected, strict=True):
        weights = examples.weights[span].tolist()
        assert weights == [1.0] * (len(block) - 1) + [0.0]
        assert examples.labels[span][:-1].tolist() == block[1:]
    assert examples.labels.dtype == examples.tokens.input_ids.dtype == np.int32
    assert examples.weights.dtype == np.float32
    assert notes == [f"4 texts make {len(expected)} blocks of up to {max_length} tokens"]
    again, _ = causal_lm.encode(
        labelled(TEXTS), gpt2, from_dict(DataSettings, {"max_length": max_length})
    )
    np.testing.assert_array_equal(again.tokens.input_ids, examples.tokens.input_ids)


def test_causal_batches_score_no_padding_and_no_last_token(gpt2):
    examples, _ = causal_lm.encode(
        labelled(TEXTS), gpt2, from_dict(DataSettings, {"max_length": 8})
    )
    batch = examples.collate(BatchIndex(np.array([2, 0]), 8), 3)  # 5 and 8 tokens, one filling
    np.testing.assert_array_equal(batch["weight"].sum(axis=1), [4, 7, 0])
    for row, i in enumerate((2, 0)):
        ids = examples.tokens.input_ids[spans(examples)[i]]
        np.testing.assert_array_equal(batch["labels"][row, : len(ids) - 1], ids[1:])
        np.testing.assert_array_equal(batch["input_ids"][row, : len(ids)], ids)


@pytest.mark.parametrize("texts", [["good"], [""]])
def test_a_text_without_anything_to_predict_is_refused(gpt2, texts):
    with pytest.raises(UserError, match=r"corpus: the texts have [01] tokens.*at least 2"):
        causal_lm.encode(labelled(texts), gpt2, from_dict(DataSettings, {"path": "corpus"}))


@pytest.mark.parametrize("case", ["gpt2-causal_lm", "gpt2-untied"])
def test_causal_loss_is_that_of_transformers(case):
    folder = FAMILIES / case
    reference = load_file(folder / "reference.safetensors")
    rows = [
        ids[mask > 0].astype(np.int32)
        for ids, mask in zip(reference["input_ids"], reference["attention_mask"], strict=True)
    ]
    examples = causal_lm.next_tokens(make_examples([[ids] for ids in rows], 0))
    batch = examples.collate(BatchIndex(np.arange(len(rows)), 16), len(rows))
    model = load_pretrained(folder, head=CAUSAL_LM.head)
    outputs = model.apply_fn(model.params, batch, key=None, train=False)
    found = CAUSAL_LM.loss.metrics(outputs, batch)["loss"]
    np.testing.assert_allclose(found.value, reference["loss"], rtol=1e-5)
    loss_fn = CAUSAL_LM.loss.make(LossSettings(), (), examples.labels)
    np.testing.assert_allclose(loss_fn(outputs, batch).value, reference["loss"], rtol=1e-5)


# --- What is learnt: masked -------------------------------------------------------------------


def masked(tokenizer, texts, **fields):
    settings = from_dict(DataSettings, {"path": "corpus", **fields})
    return masked_lm.encode(labelled(texts), tokenizer, settings)


@pytest.mark.parametrize("max_length", [3, 6, 11, 50])
def test_masked_blocks_stand_between_cls_and_sep(bert, vocab, max_length):
    texts = ["the cat is old", "good", "the bad film [SEP] zebra", "not a cat"]
    stream = []
    for i, text in enumerate(texts):
        words = text.replace("zebra", "z ##e ##b ##r ##a").split()
        stream += ([vocab["[SEP]"]] if i else []) + [vocab[word] for word in words]
    size = max_length - 2
    bodies = [stream[i : i + size] for i in range(0, len(stream), size)]
    expected = [[vocab["[CLS]"], *body, vocab["[SEP]"]] for body in bodies]
    examples, notes = masked(bert, texts, max_length=max_length)
    assert [examples.tokens.input_ids[span].tolist() for span in spans(examples)] == expected
    np.testing.assert_array_equal(examples.labels, examples.tokens.input_ids)
    special = [vocab[word] for word in ("[CLS]", "[SEP]")]
    assert examples.weights.tolist() == [float(i not in special) for i in examples.labels]
    assert notes == [f"4 texts make {len(bodies)} blocks of up to {max_length} tokens"]


def words_of(bert):
    """The vocabulary without its first five, [PAD] [UNK] [CLS] [SEP] [MASK]."""
    return np.arange(5, len(bert))


def test_shares_of_what_is_masked(bert, vocab):
    """4 standard deviations of each share, over 1000 epochs of 120 words."""
    text = " ".join(["cat", "film", "good"] * 40)
    examples, _ = masked(bert, [text], max_length=200)
    originals = examples.tokens.input_ids
    chosen, hidden, unchanged, drawn = np.zeros(122), 0, 0, []
    for epoch in range(1000):
        batch = examples.collate(BatchIndex(np.array([0]), 128), 1, (7, epoch))
        ids, weight = batch["input_ids"][0, :122], batch["weight"][0]
        assert not weight[122:].any()
        np.testing.assert_array_equal(batch["labels"][0, :122], originals)
        picked = weight[:122] > 0
        np.testing.assert_array_equal(ids[~picked], originals[~picked])
        chosen += picked
        hidden += int((ids[picked] == vocab["[MASK]"]).sum())
        unchanged += int((ids[picked] == originals[picked]).sum())
        other = picked & (ids != vocab["[MASK]"]) & (ids != originals)
        drawn += ids[other].tolist()
    assert chosen[0] == chosen[-1] == 0  # [CLS] and [SEP]
    total = chosen.sum()

    def near(count, of, share):
        assert abs(count / of - share) < 4 * math.sqrt(share * (1 - share) / of)

    near(total, 120_000, 0.15)
    near(hidden, total, 0.8)
    num_words = len(words_of(bert))
    near(unchanged, total, 0.1 + 0.1 / num_words)  # a random word may be the word itself
    near(len(drawn), total, 0.1 * (1 - 1 / num_words))
    # Every position is as likely as any other, and every word; no special token is drawn.
    assert np.abs(chosen[1:-1] - 150).max() < 5 * math.sqrt(1000 * 0.15 * 0.85)
    assert set(drawn) == set(words_of(bert).tolist())
    counts = np.bincount(drawn, minlength=len(bert))[5:]
    assert counts.max() < 3 * counts.mean()


@pytest.mark.parametrize("probability", [0.02, 0.5, 0.9])
def test_the_probability_is_the_settings_own(bert, probability):
    examples, _ = masked(bert, ["cat " * 100], max_length=128, mask_probability=probability)
    counts = [
        examples.collate(BatchIndex(np.array([0]), 128), 1, (0, epoch))["weight"].sum()
        for epoch in range(200)
    ]
    none = (1 - probability) ** 100  # of which one is chosen all the same
    assert np.mean(counts) / 100 == pytest.approx(probability + none / 100, rel=0.1)


@pytest.mark.parametrize("probability", [1e-9, 0.15])
def test_at_least_one_word_is_masked_in_each_block(bert, probability):
    examples, _ = masked(bert, ["cat [SEP] xyz"] * 9, max_length=4, mask_probability=probability)
    has_word = np.array([examples.weights[span].any() for span in spans(examples)])
    assert has_word.any()
    for epoch in (*range(30), None):
        index = BatchIndex(np.arange(len(has_word)), 8)
        draw = None if epoch is None else (0, epoch)
        batch = examples.collate(index, len(has_word), draw)
        np.testing.assert_array_equal(batch["weight"].any(axis=1), has_word)
        assert batch["labels"][batch["weight"] > 0].min() >= words_of(bert)[0]
        if probability < 1e-6:
            assert batch["weight"].sum(axis=1).max() == 1


@pytest.mark.parametrize("seed", range(3))
def test_special_and_unknown_tokens_are_never_chosen(bert, vocab, seed):
    text = "cat [MASK] 中 [SEP] good [UNK] [PAD] [CLS] film"
    examples, _ = masked(bert, [text, text], max_length=30, mask_probability=0.9)
    special = [vocab[f"[{name}]"] for name in ("PAD", "UNK", "CLS", "SEP", "MASK")]
    originals = examples.tokens.input_ids
    assert set(special) <= set(originals.tolist())
    for epoch in range(100):
        batch = examples.collate(BatchIndex(np.array([0]), 32), 1, (seed, epoch))
        size = len(originals)
        at_special = np.isin(originals, special)
        assert not batch["weight"][0, :size][at_special].any()
        np.testing.assert_array_equal(
            batch["input_ids"][0, :size][at_special], originals[at_special]
        )


def test_a_mask_follows_from_seed_epoch_and_index_alone(bert):
    examples, _ = masked(bert, ["the cat is not a very good dog " * 12], max_length=18)
    assert len(examples.lengths) > 4

    def collate(indices, draw):
        batch = examples.collate(BatchIndex(np.array(indices), 24), len(indices), draw)
        return {name: values.copy() for name, values in batch.items()}

    first = collate([0, 1, 2, 3], (3, 5))
    for name, values in collate([3, 1, 0, 2], (3, 5)).items():
        np.testing.assert_array_equal(values, first[name][[3, 1, 0, 2]])
    for other in ((3, 6), (4, 5)):
        assert (collate([0, 1, 2, 3], other)["weight"] != first["weight"]).any()
    assert (first["weight"][0] != first["weight"][1]).any()

    fixed = collate([0, 1, 2, 3], None)
    for name, values in collate([0, 1, 2, 3], None).items():
        np.testing.assert_array_equal(values, fixed[name])
    assert (fixed["weight"] != first["weight"]).any()
    again, _ = masked(bert, ["the cat is not a very good dog " * 12], max_length=18)
    # Nothing was written to.
    np.testing.assert_array_equal(examples.tokens.input_ids, again.tokens.input_ids)


def test_masked_needs_a_mask_token(gpt2):
    with pytest.raises(UserError, match=r"no mask token.*config\.task='causal_lm'"):
        masked(gpt2, TEXTS)


def test_masked_needs_a_word(bert):
    with pytest.raises(UserError, match=r"corpus: the texts have no token that can be masked"):
        masked(bert, ["中 文", "[SEP]"])


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, 2.0])
def test_a_mask_probability_out_of_range_is_refused(probability):
    settings = Settings(
        model=ModelSettings(path="model"), data=from_dict(DataSettings, {"path": "data"})
    )
    validate(settings)
    data = from_dict(DataSettings, {"path": "data", "mask_probability": probability})
    with pytest.raises(UserError, match=r"config\.data\.mask_probability is .*above 0 and below 1"):
        validate(dataclasses.replace(settings, data=data))


# --- Metrics and scores -----------------------------------------------------------------------


def random_batch(seed, spread=1.0, shape=(4, 6, 9)):
    rng = np.random.default_rng(seed)
    outputs = (spread * rng.normal(size=shape)).astype(np.float32)
    batch = {
        "labels": rng.integers(0, shape[-1], shape[:2]).astype(np.int32),
        "weight": rng.choice([0.0, 1.0], shape[:2]).astype(np.float32),
    }
    batch["weight"][-1] = 0.0  # a row that fills the batch
    return outputs, batch


def likelihoods(outputs, labels):
    logs = log_softmax(outputs.astype(np.float64), axis=-1)
    return np.take_along_axis(logs, labels[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("task", [CAUSAL_LM, MASKED_LM], ids=lambda task: task.name)
@pytest.mark.parametrize("spread", [1.0, 1e3])
@pytest.mark.parametrize("seed", range(3))
def test_sums_are_those_of_float64(task, seed, spread):
    outputs, batch = random_batch(seed, spread)
    logs, weight = likelihoods(outputs, batch["labels"]), batch["weight"]
    correct = (outputs.argmax(-1) == batch["labels"]) * weight
    found = task.loss.metrics(jnp.asarray(outputs), batch)
    assert set(found) == {"loss", "accuracy"}
    np.testing.assert_allclose(found["loss"].total, -(logs * weight).sum(), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"].total, correct.sum())
    for mean in found.values():
        np.testing.assert_allclose(mean.weight, weight.sum())
    fetched = task.output.fetch(jnp.asarray(outputs), batch)
    assert fetched.shape == (4, 2)
    np.testing.assert_allclose(fetched[:, 0], (logs * weight).sum(1), rtol=1e-5)
    np.testing.assert_allclose(fetched[:, 1], weight.sum(1))
    assert fetched[-1].tolist() == [0, 0]


@pytest.mark.parametrize("task", [CAUSAL_LM, MASKED_LM], ids=lambda task: task.name)
def test_scores(task):
    assert task.scores.compute({"loss": 1.5, "accuracy": 0.25}, None, None) == {
        "perplexity": pytest.approx(4.4816890703), "accuracy": 0.25,
    }  # fmt: skip
    assert task.scores.compute({"loss": 0.0, "accuracy": 1.0}, None, None)["perplexity"] == 1.0
    for loss, expected in ((800.0, math.inf), (math.inf, math.inf)):
        found = task.scores.compute({"loss": loss, "accuracy": 0.0}, None, None)
        assert found["perplexity"] == expected
    assert math.isnan(
        task.scores.compute({"loss": math.nan, "accuracy": 0.0}, None, None)["perplexity"]
    )
    assert set(task.scores.higher_is_better) == {"perplexity", "accuracy", "loss"}
    assert task.scores.higher_is_better[task.scores.best] is False
    assert task.scores.best == "perplexity"
    assert task.output.per_token is False


def test_options_of_the_loss():
    outputs, batch = random_batch(0)
    logs = log_softmax(outputs.astype(np.float64), axis=-1)
    smooth = 0.9 * likelihoods(outputs, batch["labels"]) + 0.1 * logs.mean(axis=-1)
    loss_fn = CAUSAL_LM.loss.make(LossSettings(label_smoothing=0.1), (), None)
    found = loss_fn(jnp.asarray(outputs), batch)
    np.testing.assert_allclose(found.total, -(smooth * batch["weight"]).sum(), rtol=1e-5)
    with pytest.raises(UserError, match=r"class_weights is .*no classes"):
        MASKED_LM.loss.make(LossSettings(class_weights=("balanced",)), (), None)


# --- Prediction -------------------------------------------------------------------------------


def records(task, examples, logits_of, batch_size=3):
    """Decodes new texts with a model that is a function of the inputs."""

    def step(batch):
        outputs = jnp.asarray(logits_of(batch["input_ids"]))
        return {}, task.output.fetch(outputs, batch)

    lengths = choose_lengths(examples.lengths, 2)
    layout = Layout("bucketed", batch_size, lengths)
    _, outputs = predict_all(step, examples, layout, per_token=task.output.per_token)
    assert outputs.shape == (len(examples.lengths), 2)
    return task.output.decode(outputs, examples, ())


@pytest.mark.parametrize("max_length", [3, 4, 7, 64])
def test_causal_perplexity_of_each_text(gpt2, max_length):
    """Under a bigram model no block boundary makes a difference."""
    table = np.random.default_rng(0).normal(size=(END + 1, END + 1)).astype(np.float32)
    logs = log_softmax(table.astype(np.float64), axis=-1)
    texts = [*TEXTS, "", "cat"]
    settings = from_dict(DataSettings, {"max_length": max_length})
    examples, _ = causal_lm.encode(Rows(texts, None), gpt2, settings)
    assert examples.lengths.max() <= max_length
    found = records(CAUSAL_LM, examples, lambda ids: table[ids])
    assert len(found) == len(texts)
    for text, record in zip(texts, found, strict=True):
        before, total = END, 0.0
        for word in ids_of(text):
            total, before = total + logs[before, word], word
        count = len(text.split())
        assert record["tokens"] == count
        assert type(record["tokens"]) is int
        if count:
            assert record["perplexity"] == pytest.approx(math.exp(-total / count), rel=1e-5)
        else:
            assert record == {"perplexity": None, "tokens": 0}


@pytest.mark.parametrize("max_length", [4, 9, 64])
def test_masked_perplexity_of_each_text(bert, max_length):
    rng = np.random.default_rng(1)
    table = rng.normal(size=(len(bert), len(bert))).astype(np.float32)
    texts = ["the cat is not a very good dog " * 3, "", "good", "[SEP]", "the film is bad"]
    settings = from_dict(DataSettings, {"max_length": max_length, "mask_probability": 0.4})
    examples, notes = masked_lm.encode(Rows(texts, None), bert, settings)
    assert notes == []
    found = records(MASKED_LM, examples, lambda ids: table[ids])
    assert len(found) == len(texts)
    sums = np.zeros((len(texts), 2))
    for i, text in enumerate(examples.info):
        batch = examples.collate(BatchIndex(np.array([i]), 64), 1)
        logs = likelihoods(table[batch["input_ids"]], batch["labels"])
        sums[text] += (logs * batch["weight"]).sum(), batch["weight"].sum()
    for record, (total, count) in zip(found, sums, strict=True):
        assert record["tokens"] == count
        if count:
            assert record["perplexity"] == pytest.approx(math.exp(-total / count), rel=1e-5)
        else:
            assert record["perplexity"] is None
    assert [record["tokens"] > 0 for record in found] == [True, False, True, False, True]
    again = records(MASKED_LM, examples, lambda ids: table[ids], batch_size=5)
    for record, other in zip(found, again, strict=True):
        assert other["tokens"] == record["tokens"]
        assert (other["perplexity"] or 0.0) == pytest.approx(record["perplexity"] or 0.0, rel=1e-5)


@pytest.mark.parametrize("task", [CAUSAL_LM, MASKED_LM], ids=lambda task: task.name)
def test_blank_texts_alone_can_be_predicted(task, gpt2, bert):
    tokenizer = gpt2 if task is CAUSAL_LM else bert
    examples, _ = task.data.encode(Rows(["", " "], None), tokenizer, DataSettings(), iter)
    size = len(tokenizer)
    found = records(task, examples, lambda ids: np.zeros((*ids.shape, size), np.float32))
    assert found == [{"perplexity": None, "tokens": 0}] * 2


def test_a_perplexity_beyond_all_numbers_is_none():
    examples = make_examples([[np.array([1], np.int32)]] * 2, 0)
    outputs = np.array([[-1e6, 1], [-2.0, 2]], np.float32)
    assert language_modeling.decode(outputs, examples, ()) == [
        {"perplexity": None, "tokens": 1}, {"perplexity": pytest.approx(math.e), "tokens": 2},
    ]  # fmt: skip


def test_an_interval_in_which_nothing_is_masked_has_no_loss():
    rows, said = [], []
    tracker = SimpleNamespace(log=lambda step, row: rows.append(row))
    run = SimpleNamespace(
        settings=Settings(model=ModelSettings(path="m")),
        goal=SimpleNamespace(steps_per_epoch=4, num_steps=8, schedule=lambda step: 0.1),
    )
    info = SimpleNamespace(grad_norm=0.0)
    moment = Moment(run, 2, None, Progress(), info=info)  # pyright: ignore[reportArgumentType]
    shown = io.StringIO()
    report = Report(Console(file=shown, force_terminal=False, width=100))
    after = log(run, [tracker], lambda _, text: said.append(text), report).act(moment)
    assert math.isnan(rows[0]["train/loss"])
    assert said == ["nothing was scored"]
    assert shown.getvalue() == "step 2/8  epoch 0.50  nothing was scored\n"
    assert after.progress == Progress()
