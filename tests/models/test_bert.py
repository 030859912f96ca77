"""BERT in its parts: prefixes, positions, padding, precision and dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.models import products
from jaxtune.models.families.bert import BERT
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.registry import make_apply


@pytest.fixture(scope="module")
def odd(golden):
    return load_pretrained(golden / "odd")


@pytest.fixture(scope="module")
def batch():
    """Two rows of 7 and 4 tokens, padded to 7."""
    rng = np.random.default_rng(0)
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32)
    return {
        "input_ids": rng.integers(5, 101, (2, 7)).astype(np.int32) * mask,
        "attention_mask": mask,
        "token_type_ids": np.array([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]], np.int32),
    }


def logits(model, batch, **options):
    options = {"key": None, "train": False} | options
    return np.asarray(model.apply_fn(model.params, batch, **options))


def row(batch, i, length):
    return {name: values[i : i + 1, :length] for name, values in batch.items()}


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_prefix_and_the_rest_are_the_whole(odd, batch, cut):
    def split(module, batch):
        x = module.embed(batch)
        x = module.run_layers(x, batch, 0, cut)
        return module.suffix(x[:, :1] if cut == 3 else x, batch, cut)

    parts = odd.module.apply({"params": odd.params}, batch, method=split)
    # The whole computes of the last layer what the head reads, and nothing else.
    np.testing.assert_allclose(parts, logits(odd, batch), atol=1e-6 if cut == 3 else 0, rtol=0)


def test_hidden_states_are_those_of_the_prefixes(odd, batch):
    def prefixes(module, batch):
        x = module.embed(batch)
        return [module.run_layers(x, batch, 0, i) for i in range(4)]

    variables = {"params": odd.params}
    states = odd.module.apply(variables, batch, method="hidden_states")
    assert len(states) == 4
    for state, prefix in zip(
        states, odd.module.apply(variables, batch, method=prefixes), strict=True
    ):
        np.testing.assert_array_equal(state, prefix)


def test_positions_count_from_zero_unless_given(odd, batch):
    counted = np.broadcast_to(np.arange(7, dtype=np.int32), (2, 7))
    plain = logits(odd, batch)
    np.testing.assert_array_equal(logits(odd, batch | {"position_ids": counted}), plain)
    shifted = logits(odd, batch | {"position_ids": counted + 1})
    assert np.abs(shifted - plain).min() > 1e-4


@pytest.mark.parametrize("name", ["input_ids", "token_type_ids"])
def test_every_input_is_read(odd, batch, name):
    changed = batch[name].copy()
    changed[0, 2] = 1 - changed[0, 2] if name == "token_type_ids" else 99
    other, plain = logits(odd, batch | {name: changed}), logits(odd, batch)
    assert np.abs(other[0] - plain[0]).min() > 1e-4
    np.testing.assert_array_equal(other[1], plain[1])


@pytest.mark.parametrize("length", [12, 41])
def test_padding_does_not_change_a_row(odd, batch, length):
    short = row(batch, 1, 4)
    padded = {name: np.zeros((1, length), np.int32) for name in short}
    padded["input_ids"] += 77  # whatever stands in the padding
    for name, values in short.items():
        padded[name][:, :4] = values
    np.testing.assert_allclose(logits(odd, padded), logits(odd, short), rtol=1e-5, atol=1e-6)


def test_padding_that_is_attended_to_does_change_a_row(odd, batch):
    open_mask = batch | {"attention_mask": np.ones((2, 7), np.int32)}
    assert np.abs(logits(odd, open_mask)[1] - logits(odd, batch)[1]).min() > 1e-4


def test_bfloat16_products_keep_float32_parameters_and_logits(golden, odd, batch):
    half = load_pretrained(golden / "odd", compute_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    states = half.module.apply({"params": half.params}, batch, method="hidden_states")
    assert {state.dtype for state in states[1:]} == {products.activation_dtype(jnp.bfloat16)}
    found, exact = logits(half, batch), logits(odd, batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert not np.array_equal(found, exact)


def test_dropout_is_a_function_of_the_key(odd, batch):
    plain = logits(odd, batch)
    first, again, other = (logits(odd, batch, key=jax.random.key(k), train=True) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 1e-5
    assert np.abs(first - plain).min() > 1e-5
    evaluated = logits(odd, batch, key=jax.random.key(0), train=False)
    np.testing.assert_array_equal(evaluated, plain)


@pytest.mark.parametrize(
    ("rates", "differs"),
    [
        ({}, False),
        ({"hidden_dropout_prob": 0.5}, True),
        ({"attention_probs_dropout_prob": 0.5}, True),
        ({"classifier_dropout": 0.5}, True),
        ({"hidden_dropout_prob": 0.5, "classifier_dropout": 0.0}, True),
    ],
)
def test_each_dropout_rate_has_its_place(odd, batch, rates, differs):
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = dataclasses.replace(odd.config, **(none | rates))
    apply_fn = make_apply(BERT.make_module("sequence", config, 3, jnp.float32))
    dropped = apply_fn(odd.params, batch, key=jax.random.key(0), train=True)
    assert np.array_equal(dropped, logits(odd, batch)) is not differs


def test_the_head_drops_at_the_hidden_rate_unless_told(odd):
    x = jnp.ones((1, 2, 36))

    def head(module, x):
        return module.head(x, {}, train=True)

    def run(**rates):
        config = dataclasses.replace(odd.config, hidden_dropout_prob=0.5, **rates)
        module = BERT.make_module("sequence", config, 3, jnp.float32)
        rngs = {"dropout": jax.random.key(0)}
        return np.asarray(module.apply({"params": odd.params}, x, method=head, rngs=rngs))

    plain = np.asarray(odd.module.apply({"params": odd.params}, x, {}, method="head"))
    assert not np.array_equal(run(), plain)
    np.testing.assert_array_equal(run(classifier_dropout=0.0), plain)
    np.testing.assert_array_equal(run(classifier_dropout=0.5), run())
