"""Losses over the vocabulary in chunks of scored tokens, against all logits at once."""

import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import make_noisy
from cover import mark_rest
from jax.extend.core import jaxprs_in_params
from scipy.special import log_softmax

from jaxtune.analysis.flops import step_flops
from jaxtune.core import dropout, paths, trees
from jaxtune.models import registry
from jaxtune.models.families.bert import BERT, BertConfig
from jaxtune.models.families.gpt2 import GPT2, GPT2Config
from jaxtune.models.vocabulary import Words
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.tasks.language_modeling import fetch, metrics, scored
from jaxtune.training import scored_chunks
from jaxtune.training.eval_step import make_eval_step
from jaxtune.training.losses import cross_entropy, make_cross_entropy
from jaxtune.training.optimizers import make_optimizer
from jaxtune.training.scored_chunks import chunk_size
from jaxtune.training.state import init_state
from jaxtune.training.step import make_sums, make_train_step
from jaxtune.training.word_losses import make_word_loss, token_scores
from jaxtune.tuning import partition
from jaxtune.tuning.lora import Lora
from jaxtune.tuning.selective import Full, Rules

CASES = {
    **{name: ("masked_lm", name, {}) for name in ("bert", "roberta", "xlm-roberta", "distilbert")},
    "modernbert with a bias": ("masked_lm", "modernbert", {"decoder_bias": True}),
    "modernbert": ("masked_lm", "modernbert", {"decoder_bias": False}),
    "modernbert untied": ("masked_lm", "modernbert", {"tie_word_embeddings": False}),
    "gpt2": ("causal_lm", "gpt2", {}),
    "gpt2 untied": ("causal_lm", "gpt2", {"tie_word_embeddings": False}),
}
OPTIONS = {
    "plain": {},
    "smoothing": {"loss.label_smoothing": 0.2},
    "focal": {"loss.focal_gamma": 1.5},
    "both": {"loss.label_smoothing": 0.2, "loss.focal_gamma": 1.5},
}


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of eight tokens, whatever the size."""
    monkeypatch.setattr(scored_chunks, "_FEW", 0)
    monkeypatch.setattr(scored_chunks, "_LEAST", 8)


@pytest.fixture
def make_run(tiny_families, tiny_settings, tmp_path):
    """A function that prepares a language model with much dropout, drawn at random."""

    def make(task, family, changes, **overrides):
        model = make_noisy(tiny_families[family], tmp_path / "noisy", changes)
        overrides = {"model.from_scratch": True, "data.mask_probability": 0.3} | overrides
        strategy = overrides.pop("tuning.name", "full")
        return prepare(tiny_settings(task, strategy, model, **overrides), Report())

    return make


def first_batch(run):
    index, epoch = next(run.data.stream.indices())
    return jax.tree.map(jnp.asarray, run.data.stream.collate(index, epoch))


def sums_of(run, apply_fn, loss_fn, parts=1):
    """Loss and gradients of the first batch."""
    trainable, frozen = partition.partition(run.params, run.tuning.stage_labels[0])
    sums = jax.jit(make_sums(apply_fn, loss_fn, parts, dropout.same_key))
    return sums(trainable, frozen, first_batch(run), jax.random.key(3))


def check_close(found, wanted):
    flat = paths.flatten(wanted)
    size = max(float(jnp.abs(leaf).max()) for leaf in flat.values())
    for name, leaf in paths.flatten(found).items():
        np.testing.assert_allclose(leaf, flat[name], rtol=1e-5, atol=1e-5 * size, err_msg=name)


def arrays(jaxpr):
    """All that a program computes, inner ones too."""
    for equation in jaxpr.eqns:
        yield from (x.aval for x in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from arrays(inner)


def sizes_of(function, *args):
    return {getattr(x, "size", 0) for x in arrays(jax.make_jaxpr(function)(*args).jaxpr)}


# --- The same numbers ---------------------------------------------------------------------------


DEFAULT = [("bert", "padded"), ("modernbert with a bias", "packed"), ("gpt2 untied", "packed")]


@pytest.mark.parametrize(
    ("case", "layout"), mark_rest([*itertools.product(CASES, ("padded", "packed"))], DEFAULT)
)
@pytest.mark.parametrize("options", mark_rest(OPTIONS, ("both",)))
def test_every_family_trains_alike(case, layout, options, make_run, small_chunks):
    task, family, changes = CASES[case]
    run = make_run(task, family, changes, **{"data.layout": layout}, **OPTIONS[options])
    settings, apply_fn = run.settings.loss, run.tuning.apply_fn
    dense = make_cross_entropy(None, settings.label_smoothing, settings.focal_gamma)
    wanted = sums_of(run, apply_fn, dense)
    assert wanted.loss.weight > 8 or task == "masked_lm"
    for parts in (1, 2):
        found = sums_of(run, run.task.loss.read(apply_fn), run.goal.loss_fn, parts)
        assert found.loss.weight == wanted.loss.weight > 0
        np.testing.assert_allclose(found.loss.total, wanted.loss.total, rtol=1e-5)
        check_close(found.grads, wanted.grads)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize(("task", "family"), [("masked_lm", "bert"), ("causal_lm", "gpt2")])
def test_evaluation_gives_the_same(task, family, layout, make_run, small_chunks):
    run = make_run(task, family, {}, **{"data.layout": layout})
    batch, holes = first_batch(run), jax.tree.map(lambda _: None, run.params)
    step = partial(make_eval_step, metrics_fn=metrics, fetch=fetch)
    wanted = jax.jit(step(run.tuning.apply_fn))(run.params, holes, batch)
    found = jax.jit(step(run.task.loss.read(run.tuning.apply_fn)))(run.params, holes, batch)
    check_close(found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)
    assert found[1].ndim == (3 if layout == "packed" else 2)


def random_words(seed, shape=(3, 30), d=6, v=50, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    draw = lambda *size: jnp.asarray(rng.normal(size=size), jnp.float32)  # noqa: E731
    batch = {
        "labels": jnp.asarray(rng.integers(0, v, shape), jnp.int32),
        "weight": jnp.asarray(rng.choice([0.0, 0.0, 0.5, 2.0], shape), jnp.float32),
    }
    return Words(draw(*shape, d), draw(v, d), draw(v), dtype), batch


def test_scores_against_float64(small_chunks):
    words, batch = random_words(0)
    logits = np.einsum("btd,vd->btv", *(np.float64(x) for x in (words.states, words.table)))
    logs = log_softmax(logits + np.float64(words.bias), axis=-1)
    weight, labels = np.asarray(batch["weight"]), np.asarray(batch["labels"])
    right = np.take_along_axis(logs, labels[..., None], axis=-1)[..., 0]
    found = token_scores(words, batch)
    np.testing.assert_allclose(found.losses, np.where(weight > 0, -right, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.hits, (weight > 0) & (logs.argmax(-1) == labels))
    total = make_word_loss()(words, batch)
    np.testing.assert_allclose(total.total, -(right * weight).sum(), rtol=1e-5)
    np.testing.assert_allclose(total.weight, weight.sum())


@pytest.mark.parametrize("scored_tokens", [0, 1, 8, 9, 90])
def test_any_number_of_tokens_may_be_scored(scored_tokens, small_chunks):
    words, batch = random_words(1)
    batch["weight"] = (jnp.arange(90) < scored_tokens).astype(jnp.float32).reshape(3, 30)

    def total(loss_fn, words):
        return loss_fn(words, batch).total

    found = jax.value_and_grad(partial(total, make_word_loss()))(words)
    dense = jax.value_and_grad(lambda w: total(cross_entropy, w.logits()))(words)
    for x, y in zip(*map(jax.tree.leaves, (found, dense)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_table_of_many_rows(dtype, small_chunks):
    """Whose gradient is summed a part of the rows at a time; the last part overlaps."""
    words, batch = random_words(2, v=2500, dtype=dtype)
    found = jax.jit(jax.grad(lambda w: make_word_loss()(w, batch).total))(words)
    dense = jax.jit(jax.grad(lambda w: cross_entropy(w.logits(), batch).total))(words)
    for x, y in zip(*map(jax.tree.leaves, (found, dense)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * float(jnp.abs(y).max()))


# --- What is not computed -----------------------------------------------------------------------


def test_what_is_frozen_has_no_gradient(small_chunks):
    words, batch = random_words(3, v=77, d=5)

    def loss(states, table):
        words_ = dataclasses.replace(words, states=states, table=table)
        return make_word_loss()(words_, batch).total

    by_states = {x.shape for x in arrays(jax.make_jaxpr(jax.grad(loss))(*_operands(words)).jaxpr)}
    by_table = {x.shape for x in arrays(jax.make_jaxpr(jax.grad(loss, 1))(*_operands(words)).jaxpr)}
    assert (77, 5) not in by_states
    assert (96, 5) in by_states
    assert (77, 5) in by_table
    assert (96, 5) not in by_table


def _operands(words):
    return words.states, words.table


@pytest.mark.parametrize(("task", "family"), [("masked_lm", "bert"), ("causal_lm", "gpt2")])
def test_lora_leaves_the_table_alone(task, family, make_run, small_chunks):
    run = make_run(task, family, {"vocab_size": 77})
    lora = Lora(rank=2, targets=(r"(?:query|c_attn)/kernel$",), head=None)
    params = lora.extend(run.params, jax.random.key(1))
    apply_fn = run.task.loss.read(lora.adapt(run.tuning.apply_fn))
    for labels in (lora.labels(params), partition.label(Full(), params)):
        trainable, frozen = partition.partition(params, labels)
        args = trainable, frozen, first_batch(run), jax.random.key(0)
        program = jax.make_jaxpr(make_sums(apply_fn, run.goal.loss_fn))(*args)
        is_frozen = "frozen" in jax.tree.leaves(labels)
        assert ((77, 16) in {x.shape for x in arrays(program.jaxpr)}) != is_frozen


def step_of(family, head, config, read, loss_fn, shape, share):
    """(a step with all parameters trained, its abstract arguments)."""
    module = family.make_module(head, config, 0, jnp.float32)
    params = registry.parameter_shapes(module)
    labels = partition.label(Full(), params)
    tx = make_optimizer("sgd", optax.constant_schedule(1e-3), labels)
    state = jax.eval_shape(lambda p: init_state(p, tx, jax.random.key(0)), params)
    ints = jax.ShapeDtypeStruct(shape, jnp.int32)
    batch = dict.fromkeys(("input_ids", "attention_mask", "labels"), ints)
    batch |= {"weight": jnp.asarray(np.arange(math.prod(shape)).reshape(shape) % 20 < 20 * share)}
    batch["example_ids"] = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    apply_fn = read(registry.make_apply(module))
    holes = jax.tree.map(lambda _: None, params)
    return make_train_step(apply_fn, loss_fn, tx), (state, holes, batch), (apply_fn, tx, labels)


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
MASKED = BERT, "masked_lm", BertConfig(**SMALL, intermediate_size=64, vocab_size=8000)
CAUSAL = GPT2, "causal_lm", GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=8000)


@pytest.mark.parametrize(("model", "share"), [(MASKED, 0.15), (CAUSAL, 1.0)])
def test_no_array_is_as_large_as_all_logits(model, share):
    rows, length, words = 8, 128, 8000
    for read, loss_fn in ((scored, make_word_loss()), (lambda f: f, cross_entropy)):
        step, args, _ = step_of(*model, read, loss_fn, (rows, length), share)
        largest = max(sizes_of(step, *args))
        assert (largest < rows * length * words / 2) == (read is scored)


def test_temporaries_of_a_masked_step():
    """Beside those of the model itself: a sixth of all logits; more than all without chunks."""
    shape, logits = (16, 128), 4 * 16 * 128 * 8000

    def own(outputs, batch):
        return cross_entropy(jnp.sum(outputs.states, axis=-1), {"labels": batch["labels"][:, 0]})

    found = {}
    for name, read, loss_fn in (
        ("own", scored, own), ("chunks", scored, make_word_loss()),
        ("all", lambda f: f, cross_entropy),
    ):  # fmt: skip
        step, args, _ = step_of(*MASKED, read, loss_fn, shape, 0.15)
        plan = jax.jit(step, donate_argnums=0).lower(*args).compile().memory_analysis()
        found[name] = plan.temp_size_in_bytes
    assert found["chunks"] - found["own"] < logits / 6
    assert found["all"] - found["own"] > logits


@pytest.mark.parametrize(
    ("tokens", "words", "expected"),
    [
        (64, 10**6, None), (1024, 1024, None), (1024, 1025, 64), (100, 50257, 64),
        (4096, 30522, 256), (4100, 30522, 264),
    ],
)  # fmt: skip
def test_the_size_of_a_chunk(tokens, words, expected):
    assert chunk_size(tokens, words) == expected


# --- What is counted ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", mark_rest((0.15, 0.5, 1.0), (0.5,)))
def test_operations_are_those_of_the_scored_tokens(share):
    """The difference of two vocabularies, so that only what a word costs is in it."""
    counts, (rows, length), d = {}, (8, 128), 256
    for size in (8000, 10000):
        config = dataclasses.replace(MASKED[2], vocab_size=size, hidden_size=d)
        _, (_, _, batch), (apply_fn, tx, labels) = step_of(
            *MASKED[:2], config, scored, make_word_loss(), (rows, length), share
        )
        params = registry.parameter_shapes(BERT.make_module("masked_lm", config, 0, jnp.float32))
        counts[size] = step_flops(apply_fn, make_word_loss(), tx, params, labels, batch)
    tokens = math.ceil(np.count_nonzero(batch["weight"]) / 64) * 64  # in whole chunks
    products = 3 * 2 * tokens * d * 2000  # logits, and the gradients of both operands
    assert counts[10000] - counts[8000] == pytest.approx(products, rel=0.03)


# --- What strategies change ---------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_a_changed_output_matrix_gives_logits(rate, make_run, small_chunks):
    run = make_run("causal_lm", "gpt2", {"tie_word_embeddings": False})
    lora = Lora(rank=2, dropout=rate, targets=(r"lm_head/kernel$",), head=None)
    params = lora.extend(run.params, jax.random.key(1))
    params = jax.tree.map(lambda x: x + 0.01, params)
    trainable, frozen = partition.partition(params, lora.labels(params))
    assert trees.count(trainable)
    apply_fn, batch, key = lora.adapt(run.tuning.apply_fn), first_batch(run), jax.random.key(2)
    found, wanted = (
        jax.jit(make_sums(f, loss))(trainable, frozen, batch, key)
        for f, loss in ((scored(apply_fn), make_word_loss()), (apply_fn, cross_entropy))
    )
    np.testing.assert_array_equal(found.loss.total, wanted.loss.total)
    check_close(found.grads, wanted.grads)


def test_the_bias_alone(make_run, small_chunks):
    """Neither states nor table have a gradient then."""
    run = make_run("masked_lm", "bert", {})
    rules = Rules((r"cls/predictions/bias$=trainable", r".*=frozen"))
    trainable, frozen = partition.partition(run.params, partition.label(rules, run.params))
    apply_fn, batch, key = run.tuning.apply_fn, first_batch(run), jax.random.key(2)
    found, wanted = (
        jax.jit(make_sums(f, loss))(trainable, frozen, batch, key)
        for f, loss in ((scored(apply_fn), make_word_loss()), (apply_fn, cross_entropy))
    )
    check_close(found.grads, wanted.grads)


def test_a_model_by_itself_gives_logits(make_run):
    run = make_run("masked_lm", "bert", {})
    batch = first_batch(run)
    outputs = run.tuning.apply_fn(run.params, batch, key=None, train=False)
    assert outputs.shape == (*batch["input_ids"].shape, 24)
