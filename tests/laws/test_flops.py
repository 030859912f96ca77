"""The FLOPs of a step, against matrix products counted by hand from the model's dimensions.

A frozen layer below all trained ones has a forward pass alone; a trained one has a backward pass
too, with two products for each of the forward's: one for its input and one for its weights.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import optax
import pytest
from cover import mark_rest

from jaxtune.analysis.flops import step_flops
from jaxtune.models import registry
from jaxtune.models.families import bert
from jaxtune.training.losses import cross_entropy
from jaxtune.training.optimizers import make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection, partition
from jaxtune.tuning.registry import make_strategy

CLASSES = 4
MINILM = bert.BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)
BASE = bert.BertConfig()  # 12 layers, 768 wide
QUICK = {"xla_backend_optimization_level": 0}


def layer_forward(config, b, t):
    """Products of one layer; a product of [m k] and [k n] is 2 m k n operations."""
    d, f = config.hidden_size, config.intermediate_size
    projections = 4 * 2 * (b * t) * d * d  # query, key, value, output
    scores = 2 * b * t * t * d  # over all heads
    mixing = 2 * b * t * t * d
    feed_forward = 2 * 2 * (b * t) * d * f
    return projections + scores + mixing + feed_forward


def head_forward(config, b):
    """The pooler and the classifier, on one token a row."""
    d = config.hidden_size
    return 2 * b * d * d + 2 * b * d * CLASSES


def last_layer_forward(config, b, t):
    """Keys and values of all tokens; everything else of the first token of each row."""
    d, f = config.hidden_size, config.intermediate_size
    keys_values, others = 2 * 2 * (b * t) * d * d, 2 * 2 * b * d * d
    attention, feed_forward = 2 * 2 * b * t * d, 2 * 2 * b * d * f
    return keys_values + others + attention + feed_forward


def layers_forward(config, k, b, t):
    """The upper k layers."""
    if k == 0:
        return 0
    return (k - 1) * layer_forward(config, b, t) + last_layer_forward(config, b, t)


def expected(config, k, b, t):
    """All layers forward; twice the forward of the k trained ones and of what stands above."""
    head, layers = head_forward(config, b), layers_forward(config, config.num_hidden_layers, b, t)
    return layers + head + 2 * (layers_forward(config, k, b, t) + head)


def batch(b, t):
    ints = jax.ShapeDtypeStruct((b, t), jnp.int32)
    return {
        "input_ids": ints,
        "attention_mask": ints,
        "token_type_ids": ints,
        "labels": jax.ShapeDtypeStruct((b,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((b,), jnp.float32),
    }


def model(config, name, **fields):
    """(apply_fn, shapes, labels, tx); no weight is made."""
    module = bert.BERT.make_module("sequence", config, CLASSES, jnp.float32)
    strategy, shapes = make_strategy(name, fields), registry.parameter_shapes(module)
    params = jax.eval_shape(
        lambda p, k: injection.extend(strategy, p, k), shapes, jax.random.key(0)
    )
    labels = partition.label(strategy, params)
    tx = make_optimizer("adamw", optax.constant_schedule(1e-3), partition.trainable_labels(labels))
    return injection.adapt(strategy, registry.make_apply(module)), params, labels, tx


@functools.cache
def counted(config, b, t, name, **fields):
    apply_fn, params, labels, tx = model(config, name, **fields)
    return step_flops(apply_fn, cross_entropy, tx, params, labels, batch(b, t))


@functools.cache
def forward(config, b, t):
    """The count of a forward pass with dropout and the loss, and of nothing else."""
    apply_fn, params, *_ = model(config, "full")

    def loss(params, batch, key):
        return cross_entropy(apply_fn(params, batch, key=key, train=True), batch).total

    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.jit(loss).lower(params, batch(b, t), key).cost_analysis()["flops"]


@pytest.mark.parametrize("k", mark_rest(range(7), (0, 1, 6)))
def test_the_count_for_each_number_of_layers_of_minilm(k):
    found = counted(MINILM, 32, 48, "last_layers", num_layers=k)
    assert found == pytest.approx(expected(MINILM, k, 32, 48), rel=0.06)


@pytest.mark.parametrize("k", mark_rest((1, 6, 11), (1,)))
def test_the_count_for_bert_base(k):
    found = counted(BASE, 8, 64, "last_layers", num_layers=k)
    assert found == pytest.approx(expected(BASE, k, 8, 64), rel=0.03)


@pytest.mark.exhaustive
def test_each_layer_more_costs_twice_its_forward():
    """The difference of two counts, so that nothing but a layer's backward is in it."""
    counts = [counted(MINILM, 32, 48, "last_layers", num_layers=k) for k in range(7)]
    steps = [high - low for low, high in itertools.pairwise(counts[1:])]
    for step in steps:
        assert step == pytest.approx(2 * layer_forward(MINILM, 32, 48), rel=0.1)
    # The first of them has the last layer's gradient of its input, and that layer is another.
    assert max(steps[1:]) == pytest.approx(min(steps[1:]), rel=1e-3)


@pytest.mark.parametrize(
    ("config", "b", "t"), mark_rest([(MINILM, 32, 48), (BASE, 8, 64)], [(MINILM, 32, 48)])
)
def test_the_head_alone_has_no_backward_through_a_layer(config, b, t):
    found = counted(config, b, t, "head")
    assert found == pytest.approx(forward(config, b, t), rel=0.01)
    products = layers_forward(config, config.num_hidden_layers, b, t)
    assert found == pytest.approx(products, rel=0.1)


def compiled_flops(config, b, t, name, **fields):
    apply_fn, params, labels, tx = model(config, name, **fields)
    trainable, frozen = partition.partition(params, labels)
    state = jax.eval_shape(lambda p: init_state(p, tx, jax.random.key(0)), trainable)
    step = make_train_step(apply_fn, cross_entropy, tx)
    costs = jax.jit(step).lower(state, frozen, batch(b, t)).compile(QUICK).cost_analysis()
    if not costs:
        pytest.skip("this backend does not count operations")
    return costs["flops"]


@pytest.mark.parametrize("k", mark_rest((0, 1, 3, 6), (1,)))
def test_the_compiled_program_costs_the_same(k):
    found = compiled_flops(MINILM, 8, 48, "last_layers", num_layers=k)
    counts = counted(MINILM, 8, 48, "last_layers", num_layers=k)
    assert found == pytest.approx(counts, rel=0.02)
    # The update takes a dozen operations a trained parameter: much, for so small a batch.
    assert found == pytest.approx(expected(MINILM, k, 8, 48), rel=0.1)


@pytest.mark.parametrize("k", mark_rest((1, 6), ()))
def test_the_compiled_program_of_bert_base(k):
    found = compiled_flops(BASE, 8, 64, "last_layers", num_layers=k)
    assert found == pytest.approx(expected(BASE, k, 8, 64), rel=0.03)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("full", {}),
        pytest.param("head", {}, marks=pytest.mark.exhaustive),
        pytest.param("bitfit", {}, marks=pytest.mark.exhaustive),
        pytest.param("lora", {"rank": 8}, marks=pytest.mark.exhaustive),
    ],
)
def test_what_is_counted_is_what_is_compiled(name, fields):
    config = dataclasses.replace(MINILM, num_hidden_layers=2)
    counts = counted(config, 16, 32, name, **fields)
    assert compiled_flops(config, 16, 32, name, **fields) == pytest.approx(counts, rel=0.02)
