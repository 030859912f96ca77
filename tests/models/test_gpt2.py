"""GPT-2 in its parts: what a token sees, where a text ends, old files, precision and dropout."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.convert import torch_name
from jaxtune.models.families.gpt2 import GPT2, NAMES, GPT2Config, config_from_hf
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.registry import init_params, make_apply

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
WORD_OF_PADDING = 9  # whatever stands in the padding
ROWS = ((21, 35, 32, 7, 28, 33, 14), (12, 35, 19, 30))


@pytest.fixture(scope="module")
def sequence():
    return load_pretrained(FAMILIES / "gpt2-odd")


@pytest.fixture(scope="module")
def token():
    return load_pretrained(FAMILIES / "gpt2-token", head="token")


def padded(rows, width, side="right"):
    """Rows of tokens as a batch; positions count the real tokens."""
    shape = (len(rows), width)
    batch = {
        "input_ids": np.full(shape, WORD_OF_PADDING, np.int32),
        "attention_mask": np.zeros(shape, np.int32),
        "position_ids": np.zeros(shape, np.int32),
    }
    for i, row in enumerate(rows):
        start = 0 if side == "right" else width - len(row)
        real = slice(start, start + len(row))
        batch["input_ids"][i, real] = row
        batch["attention_mask"][i, real] = 1
        batch["position_ids"][i, real] = range(len(row))
    return batch


def run(model, batch, **options):
    options = {"key": None, "train": False} | options
    apply_fn = jax.jit(model.apply_fn, static_argnames="train")
    return np.asarray(apply_fn(model.params, batch, **options))


def run_with(model, head, batch, *, key=None, **fields):
    """Outputs in training of the same parameters under another config or head."""
    config = dataclasses.replace(model.config, **fields)
    apply_fn = make_apply(GPT2.make_module(head, config, 3, jnp.float32))
    apply_fn = jax.jit(apply_fn, static_argnames="train")
    return np.asarray(apply_fn(model.params, batch, key=key, train=key is not None))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("width", [7, 12, 24])
def test_padding_does_not_change_real_tokens(token, side, width):
    outputs = run(token, padded(ROWS, width, side))
    for i, row in enumerate(ROWS):
        start = 0 if side == "right" else width - len(row)
        alone = run(token, padded([row], len(row)))[0]
        np.testing.assert_allclose(outputs[i, start : start + len(row)], alone, atol=2e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_is_judged_by_its_last_real_token(sequence, side):
    together = run(sequence, padded(ROWS, 12, side))
    for i, row in enumerate(ROWS):
        alone = padded([row], len(row))
        np.testing.assert_allclose(together[i], run(sequence, alone)[0], atol=2e-6)
        states = sequence.module.apply({"params": sequence.params}, alone, method="hidden_states")
        last = np.asarray(states[-1][0, -1])
        scale = {name: np.asarray(v) for name, v in sequence.params["transformer"]["ln_f"].items()}
        normed = (last - last.mean()) / np.sqrt(last.var() + 1e-5) * scale["scale"] + scale["bias"]
        score = np.asarray(sequence.params["score"]["kernel"])
        np.testing.assert_allclose(together[i], normed @ score, atol=2e-5)


def test_a_real_token_may_be_the_word_of_padding(sequence):
    """GPT-2 has no padding token, so that many take the token that ends a text."""
    pad = sequence.design.source.hf_config["pad_token_id"]
    assert pad is not None
    batch = padded([(21, 35, 32, pad)], 8)
    batch["input_ids"] = np.where(batch["attention_mask"] > 0, batch["input_ids"], pad)
    alone = run(sequence, padded([(21, 35, 32, pad)], 4))
    np.testing.assert_allclose(run(sequence, batch), alone, atol=2e-6)
    assert np.abs(alone - run(sequence, padded([(21, 35, 32)], 3))).max() > 1e-3


def test_a_row_that_only_fills_the_batch_is_finite(sequence):
    batch = padded([ROWS[0], ()], 7)

    def total(params):
        return jnp.sum(sequence.apply_fn(params, batch, key=None, train=False))

    assert np.isfinite(run(sequence, batch)).all()
    assert all(
        np.isfinite(leaf).all()
        for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(sequence.params))
    )


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_token_is_seen_by_itself_and_later_ones(token, place):
    batch = padded(ROWS[:1], 7)
    changed = batch | {"input_ids": batch["input_ids"].copy()}
    changed["input_ids"][0, place] = 5
    differs = np.abs(run(token, changed) - run(token, batch))[0].max(axis=-1)
    np.testing.assert_array_equal(differs[:place], 0)
    assert (differs[place:] > 1e-5).all()


def test_positions_count_from_zero_unless_given(token):
    batch = padded(ROWS[:1], 7)
    plain = run(token, batch)
    counted = {name: value for name, value in batch.items() if name != "position_ids"}
    np.testing.assert_array_equal(run(token, counted), plain)
    shifted = run(token, batch | {"position_ids": batch["position_ids"] + 1})
    assert np.abs(shifted - plain).max() > 1e-2


def test_tied_logits_are_against_the_word_embeddings(token):
    params = {"transformer": token.params["transformer"]}
    module = GPT2.make_module("causal_lm", token.config, 3, jnp.float32)
    assert set(paths.flatten(init_params(module, jax.random.key(0)))) == set(paths.flatten(params))
    batch = padded(ROWS, 7)

    def normed(module, batch):
        x = module.run_layers(module.embed(batch), batch, 0, 3)
        return module.backbone.normalise(x)

    words = np.asarray(params["transformer"]["wte"]["embedding"])
    expected = np.asarray(module.apply({"params": params}, batch, method=normed)) @ words.T
    np.testing.assert_allclose(module.apply({"params": params}, batch), expected, atol=1e-5)


def test_old_files_hold_masks_and_the_tied_matrix(token, tmp_path):
    """As openai-community/gpt2: no prefix, and buffers that were never parameters."""
    folder = tmp_path / "old"
    shutil.copytree(FAMILIES / "gpt2-token", folder)
    tensors = {
        name.removeprefix("transformer."): value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    tensors["lm_head.weight"] = tensors["wte.weight"]
    for i in range(3):
        tensors[f"h.{i}.attn.bias"] = np.tril(np.ones((1, 1, 24, 24), np.float32))
        tensors[f"h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)
    save_file(tensors, folder / "model.safetensors")
    old = load_pretrained(folder, head="token")
    assert not old.report.new
    assert not old.report.unused
    for leaf, value in paths.flatten(token.params).items():
        np.testing.assert_array_equal(paths.flatten(old.params)[leaf], value)


def test_buffers_are_no_parameters(token):
    leaves = [torch_name(leaf) for leaf in paths.flatten(token.params)]
    assert "transformer.h.0.attn.c_attn.bias" in leaves
    assert not [leaf for leaf in leaves if re.search(GPT2.buffers, leaf)]


def test_names_find_the_parts(token):
    leaves = list(paths.flatten(token.params))

    def found(*patterns):
        return {leaf for leaf in leaves for pattern in patterns if re.search(pattern, leaf)}

    def kernels(part):
        return {f"transformer/h/{i}/{part}/kernel" for i in range(3)}

    layers = [re.search(NAMES.layers, leaf) for leaf in leaves]
    assert {match[1] for match in layers if match} == {"0", "1", "2"}
    assert sum(match is not None for match in layers) == 3 * 12
    assert found(NAMES.below) == {f"transformer/{t}/embedding" for t in ("wte", "wpe")}
    assert len(found(NAMES.norms)) == 2 * (2 * 3 + 1)
    matrices = NAMES.matrices
    assert found(matrices.queries) == found(matrices.keys) == kernels("attn/c_attn")
    assert found(matrices.values) == kernels("attn/c_attn")
    assert found(matrices.attention_output) == kernels("attn/c_proj")
    assert found(matrices.feedforward_output) == kernels("mlp/c_proj")


def test_what_adds_to_the_residual_starts_smaller():
    config = GPT2Config(vocab_size=200, n_positions=64, n_embd=96, n_layer=8, n_head=4)
    module = GPT2.make_module("sequence", config, 3, jnp.float32)
    leaves = paths.flatten(init_params(module, jax.random.key(0)))
    spreads = {
        "wte/embedding": 0.02,
        "wpe/embedding": 0.02,
        "h/7/attn/c_attn/kernel": 0.02,
        "h/7/attn/c_proj/kernel": 0.02 / 4,  # sqrt(2 * 8 layers)
        "h/7/mlp/c_fc/kernel": 0.02,
        "h/7/mlp/c_proj/kernel": 0.02 / 4,
    }
    for leaf, spread in spreads.items():
        np.testing.assert_allclose(np.std(leaves[f"transformer/{leaf}"]), spread, rtol=0.05)
    biases = [value for leaf, value in leaves.items() if leaf.endswith("/bias")]
    assert biases
    assert not any(np.any(value) for value in biases)


def test_bfloat16_products_keep_float32_parameters_and_logits(sequence):
    half = load_pretrained(FAMILIES / "gpt2-odd", compute_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    found, exact = run(half, padded(ROWS, 7)), run(sequence, padded(ROWS, 7))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert not np.array_equal(found, exact)


NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.mark.parametrize(
    ("head", "rates", "differs"),
    [
        ("token", {"classifier_dropout": 0.0}, False),
        ("token", {"classifier_dropout": 0.0, "embd_pdrop": 0.5}, True),
        ("token", {"classifier_dropout": 0.0, "attn_pdrop": 0.5}, True),
        ("token", {"classifier_dropout": 0.0, "resid_pdrop": 0.5}, True),
        ("token", {}, True),  # 0.1 unless told
        ("token", {"hidden_dropout": 0.0}, False),
        ("token", {"hidden_dropout": 0.0, "classifier_dropout": 0.5}, True),
        ("sequence", {"classifier_dropout": 0.5}, False),
        ("sequence", {"resid_pdrop": 0.5}, True),
    ],
)
def test_each_dropout_rate_has_its_place(sequence, token, head, rates, differs):
    model, batch = {"sequence": sequence, "token": token}[head], padded(ROWS, 7)
    dropped = run_with(model, head, batch, key=jax.random.key(0), **(NO_DROPOUT | rates))
    assert np.allclose(dropped, run(model, batch), atol=1e-6) is not differs


def test_both_residuals_are_dropped(token):
    """With all that is added to the residual dropped, what is left are the embeddings."""
    none = NO_DROPOUT | {"classifier_dropout": 0.0}
    batch = padded(ROWS[:1], 7)
    dropped = run_with(token, "token", batch, key=jax.random.key(0), **none | {"resid_pdrop": 1.0})

    def without_layers(module, batch):
        return module.head(module.embed(batch), batch)

    expected = token.module.apply({"params": token.params}, batch, method=without_layers)
    np.testing.assert_allclose(dropped, expected, atol=1e-6)


def hf_config(**fields):
    return json.loads((FAMILIES / "gpt2-token" / "config.json").read_text()) | fields


@pytest.mark.parametrize(
    "fields",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"add_cross_attention": True},
        {"n_layer": 0},
        {"n_inner": "wide"},
        {"tie_word_embeddings": 1},
        {"activation_function": "quick_gelu"},
    ],
)
def test_a_config_that_is_computed_differently_is_refused(fields):
    ((name, value),) = fields.items()
    with pytest.raises(UserError, match=rf"^somewhere: {name} is {value!r}"):
        config_from_hf(hf_config(**fields), "somewhere")


@pytest.mark.parametrize("name", ["n_head", "num_attention_heads"])
def test_heads_that_do_not_divide_the_width_are_refused(name):
    with pytest.raises(UserError, match="12 is not a multiple of the 5 attention heads"):
        config_from_hf(hf_config(**{name: 5}), "somewhere")


def test_a_config_has_the_defaults_of_transformers():
    config = config_from_hf({"model_type": "gpt2", "n_ctx": 1024}, "somewhere")
    assert config == GPT2Config()
    assert (config.inner_size, config.max_length, config.type_vocab_size) == (3072, 1024, 0)
    assert config.head_dropout == 0.1
    assert config_from_hf(hf_config(n_inner=23), "somewhere").inner_size == 23


def test_the_general_names_of_fields_are_read_first():
    """As transformers does, whichever stands first in the file."""
    general = {
        "hidden_size": 24,
        "max_position_embeddings": 9,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    config = config_from_hf(hf_config(**general), "somewhere")
    assert (config.n_embd, config.n_positions, config.n_head, config.n_layer) == (24, 9, 4, 2)
