"""ModernBERT: both spellings of its config, windows, rotary positions, heads, dropout, names."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.families.modernbert import MODERNBERT, NAMES, ModernBert
from jaxtune.models.families.modernbert_config import config_from_hf
from jaxtune.models.layers import Dropout
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.registry import init_params, make_apply
from jaxtune.models.rotary import rotate, rotation

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
KINDS = ("full_attention", "sliding_attention")


def read(case="sequence"):
    return json.loads((FAMILIES / f"modernbert-{case}" / "config.json").read_text())


def older(hf_config):
    """The same model as transformers 4 spelled it."""
    written = {k: v for k, v in hf_config.items() if k not in ("rope_parameters", "layer_types")}
    return written | {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0}


def load(case, **options):
    return load_pretrained(FAMILIES / f"modernbert-{case}", **options)


def copy_of(case, tmp_path, config=None, tensors=None):
    """A folder with some fields of the config and some tensors changed; None takes one out."""
    folder = tmp_path / "model"
    shutil.copytree(FAMILIES / f"modernbert-{case}", folder)
    (folder / "config.json").write_text(json.dumps(read(case) | (config or {})))
    held = load_file(folder / "model.safetensors") | (tensors or {})
    kept = {name: value for name, value in held.items() if value is not None}
    save_file(kept, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def batch():
    """Two rows of 9 and 5 tokens, padded to 9."""
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4], np.int32)
    ids = np.random.default_rng(0).integers(5, 37, (2, 9)).astype(np.int32)
    return {"input_ids": np.where(mask, ids, 3), "attention_mask": mask}


def logits(model, batch, module=None):
    apply_fn = model.apply_fn if module is None else make_apply(module)
    apply_fn = jax.jit(apply_fn, static_argnames="train")
    return np.asarray(apply_fn(model.params, batch, key=None, train=False))


def variant(model, **fields):
    """The same parameters with another config."""
    config = dataclasses.replace(model.config, **fields)
    return MODERNBERT.make_module("sequence", config, len(model.class_names), jnp.float32)


def test_both_spellings_of_the_config_are_the_same_model():
    new, old = config_from_hf(read(), "new"), config_from_hf(older(read()), "old")
    assert old.global_layers is None
    assert new.global_layers == (0, 3)
    assert dataclasses.replace(old, global_layers=(0, 3)) == new
    assert [old.is_global(i) for i in range(4)] == [new.is_global(i) for i in range(4)]


def test_fields_of_either_spelling_are_read():
    thetas = {"global_rope_theta": 500.0, "local_rope_theta": 30}
    old = config_from_hf(older(read()) | thetas | {"global_attn_every_n_layers": 2}, "c")
    assert (old.global_rope_theta, old.local_rope_theta) == (500.0, 30.0)
    assert [old.is_global(i) for i in range(4)] == [True, False, True, False]
    rope = {kind: {"rope_type": "default", "rope_theta": 7.0 + i} for i, kind in enumerate(KINDS)}
    new = config_from_hf(
        older(read()) | thetas | {"rope_parameters": rope, "layer_types": [KINDS[1]] * 4}, "c"
    )
    assert (new.global_rope_theta, new.local_rope_theta) == (7.0, 8.0)
    assert not any(new.is_global(i) for i in range(4))


def test_a_local_theta_of_null_is_the_global_one():
    config = config_from_hf(older(read()) | {"local_rope_theta": None}, "c")
    assert config.local_rope_theta == config.global_rope_theta == 160000.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 5}, "hidden size 24 is not a multiple of the 5"),
        ({"num_attention_heads": 8}, "of 3 features are not supported"),
        ({"hidden_activation": "swiglu"}, "hidden_activation is 'swiglu'"),
        ({"classifier_activation": "geglu"}, "classifier_activation is 'geglu', expected one of"),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max', expected one of cls, mean"),
        ({"layer_types": ["full_attention"] * 3}, "expected a list of 4"),
        ({"layer_types": ["full_attention"] * 3 + ["chunked_attention"]}, "chunked_attention"),
        ({"layer_types": "full_attention"}, "expected a list of 4"),
        ({"layer_types": [["full_attention"]] * 4}, "expected a list of 4"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "rope_parameters is {'rope_theta': 5.0}"),
        ({"rope_parameters": {KINDS[0]: 5.0}}, "full_attention is 5.0, expected an object"),
        ({"rope_parameters": {KINDS[1]: {"rope_type": "yarn"}}}, "sliding.*rope_type is 'yarn'"),
        ({"rope_parameters": {KINDS[0]: {"type": "linear"}}}, "full.*type is 'linear'"),
        ({"rope_parameters": {KINDS[0]: {"rope_theta": "big"}}}, "full.*'big'.*a number above 0"),
        ({"rope_parameters": {KINDS[0]: {"rope_theta": 10**400}}}, "full.*above 0 and below 1e.30"),
        ({"rope_parameters": None, "local_rope_theta": -1.0}, "local_rope_theta.*above 0"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is"),
        ({"head_dim": 16}, "head_dim is 16"),
        ({"sliding_window": 6}, "sliding_window is 6"),
        ({"local_attention": 0}, "local_attention is 0"),
        ({"mlp_bias": "no"}, "mlp_bias is 'no', expected true or false"),
    ],
)
def test_what_would_be_computed_differently_is_refused(fields, message):
    with pytest.raises(UserError, match=rf"^there: .*{message}"):
        config_from_hf(read() | fields, "there")


@pytest.mark.parametrize("case", ["sequence", "mean", "token", "masked_lm"])
def test_padding_does_not_change_real_tokens(case, batch):
    head = "sequence" if case == "mean" else case
    model = load(case, head=head)
    padded = logits(model, batch)[1]
    alone = logits(model, {name: values[1:, :5] for name, values in batch.items()})[0]
    length = None if head == "sequence" else 5
    np.testing.assert_allclose(padded[:length], alone, atol=1e-5)
    assert np.abs(logits(model, batch)[0][:length] - padded[:length]).max() > 0.1


@pytest.mark.parametrize(("local_attention", "reach"), [(6, 3), (5, 2), (1, 0)])
def test_a_local_layer_sees_half_the_window_on_either_side(batch, local_attention, reach):
    model = load("sequence")
    module = variant(model, local_attention=local_attention)
    x = jax.random.normal(jax.random.key(0), (2, 9, 24))

    def run(x, layer):
        variables = {"params": model.params}
        return module.apply(variables, x, batch, layer, layer + 1, method="run_layers")

    moved = x.at[0, 4].add(1.0)
    changed = {
        layer: np.flatnonzero(np.abs(run(moved, layer) - run(x, layer))[0].max(-1) > 0)
        for layer in range(4)
    }
    near = list(range(4 - reach, 4 + reach + 1))
    for layer, everywhere in enumerate([True, False, False, True]):
        assert changed[layer].tolist() == (list(range(9)) if everywhere else near)


def test_only_distances_between_positions_matter(batch):
    model = load("sequence")
    counted = np.broadcast_to(np.arange(9, dtype=np.int32), (2, 9))
    plain = logits(model, batch)
    np.testing.assert_array_equal(logits(model, batch | {"position_ids": counted}), plain)
    shifted = logits(model, batch | {"position_ids": counted + 11})
    np.testing.assert_allclose(shifted, plain, atol=1e-4)
    assert np.abs(logits(model, batch | {"position_ids": counted // 2}) - plain).max() > 1e-2


@pytest.mark.parametrize("field", ["global_rope_theta", "local_rope_theta"])
def test_each_theta_is_used(batch, field):
    model = load("sequence")
    other = logits(model, batch, variant(model, **{field: 100.0}))
    assert np.abs(other - logits(model, batch)).max() > 1e-2


def test_rotation_is_a_product_of_complex_numbers():
    x = np.random.default_rng(1).normal(size=(1, 6, 2, 8)).astype(np.float32)
    positions = np.array([[0, 1, 2, 3, 100, 8191]])
    angles = positions[0][:, None] / 50.0 ** (np.arange(0, 8, 2) / 8)  # [t k/2]
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)[None, :, None]
    wanted = np.concatenate([turned.real, turned.imag], -1)
    by = rotation(jnp.asarray(positions), 8, 50.0)
    np.testing.assert_allclose(rotate(x, by)[:, :5], wanted[:, :5], atol=5e-5)
    np.testing.assert_allclose(rotate(x, by)[:, 5], wanted[:, 5], atol=3e-3)
    half = rotate(jnp.asarray(x, jnp.bfloat16), by)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, wanted, atol=0.03)


def test_a_head_of_a_masked_language_model_is_kept_for_classes():
    model = load("masked_lm", class_names=("a", "b"), key=jax.random.key(0))
    assert list(model.report.new) == ["classifier"]
    assert model.report.unused == ("decoder.bias",)
    stored = load_file(FAMILIES / "modernbert-masked_lm" / "model.safetensors")
    np.testing.assert_array_equal(
        model.params["head"]["dense"]["kernel"].T, stored["head.dense.weight"]
    )


def test_an_untied_decoder_has_its_own_matrix(batch, tmp_path):
    tied = load("masked_lm", head="masked_lm")
    words = np.asarray(tied.params["model"]["embeddings"]["tok_embeddings"]["embedding"])
    own = words.copy()
    own[7] = 0
    folder = copy_of("masked_lm", tmp_path, {"tie_word_embeddings": False}, {"decoder.weight": own})
    wanted, found = logits(tied, batch), logits(load_pretrained(folder, head="masked_lm"), batch)
    others = np.arange(41) != 7
    np.testing.assert_allclose(found[..., others], wanted[..., others], atol=1e-5)
    bias = np.asarray(tied.params["decoder"]["bias"])
    np.testing.assert_allclose(found[..., 7], np.full((2, 9), bias[7]), atol=1e-6)


def test_a_decoder_without_bias(batch, tmp_path):
    tied = load("masked_lm", head="masked_lm")
    folder = copy_of("masked_lm", tmp_path, {"decoder_bias": False}, {"decoder.bias": None})
    model = load_pretrained(folder, head="masked_lm", key=jax.random.key(0))
    assert set(model.params) == {"model", "head"}
    wanted = logits(tied, batch) - np.asarray(tied.params["decoder"]["bias"])
    np.testing.assert_allclose(logits(model, batch), wanted, atol=1e-5)


def test_dropout_stands_where_transformers_has_it(batch):
    model = load("sequence")
    module = variant(
        model, embedding_dropout=0.1, attention_dropout=0.2, mlp_dropout=0.3, classifier_dropout=0.4
    )
    found = []

    def note(next_fun, args, kwargs, context):
        if isinstance(context.module, Dropout) and context.method_name == "__call__":
            where = "/".join(context.module.path[:-1])
            found.append((where, context.module.rate, args[0].ndim))
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(note):
        rngs = {"dropout": jax.random.key(0)}
        outputs = module.apply({"params": model.params}, batch, train=True, rngs=rngs)
    layers = [
        place
        for i in range(4)
        for place in (
            (f"model/layers/{i}/attn", 0.2, 4),  # on the probabilities
            (f"model/layers/{i}", 0.2, 3),
            (f"model/layers/{i}/mlp", 0.3, 3),
        )
    ]
    assert found == [("model/embeddings", 0.1, 3), *layers, ("", 0.4, 3)]
    assert np.abs(outputs - logits(model, batch)).max() > 1e-2


def test_weights_are_drawn_without_tails():
    config = dataclasses.replace(config_from_hf(read(), "c"), hidden_size=96, intermediate_size=64)
    untied = dataclasses.replace(config, tie_word_embeddings=False)
    heads = {
        "sequence": MODERNBERT.make_module("sequence", config, 50, jnp.float32),
        "masked_lm": MODERNBERT.make_module("masked_lm", untied, 0, jnp.float32),
    }
    for module in heads.values():
        for leaf, value in paths.flatten(init_params(module, jax.random.key(0))).items():
            if value.ndim < 2:
                wanted = 1.0 if leaf.endswith("scale") else 0.0
                np.testing.assert_array_equal(value, np.full(value.shape, wanted))
                continue
            if leaf.startswith("classifier"):
                spread = 96**-0.5
            else:
                is_inner = re.search("Wqkv|Wi|tok_embeddings", leaf)
                spread = 0.02 if is_inner else 0.02 / 8**0.5
            assert np.abs(value).max() <= 2 * spread
            # a normal distribution cut at 2 standard deviations has 0.880 of the spread
            np.testing.assert_allclose(np.std(value), 0.880 * spread, rtol=0.06)


def test_bfloat16_products_give_float32_outputs_near_those_of_float32(batch):
    exact = load("sequence")
    model = load("sequence", compute_dtype=jnp.bfloat16)
    states = model.module.apply({"params": model.params}, batch, method="hidden_states")
    assert {state.dtype for state in states} == {jnp.dtype(jnp.float32)}  # sums of the residual
    found, wanted = logits(model, batch), logits(exact, batch)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - wanted).max() < 0.1


def test_names_find_what_strategies_act_on():
    leaves = list(paths.flatten(load("biases").params))
    places = [re.search(NAMES.layers, leaf) for leaf in leaves]
    assert {int(place[1]) for place in places if place} == {0, 1, 2, 3}
    rest = [leaf for leaf, place in zip(leaves, places, strict=True) if not place]
    below = [leaf for leaf in rest if re.search(NAMES.below, leaf)]
    assert below
    assert all(leaf.startswith("model/embeddings/") for leaf in below)
    assert {leaf.split("/")[0] for leaf in set(rest) - set(below)} == {
        "model",  # final_norm
        "head",
        "classifier",
    }
    norms = [leaf for leaf in leaves if re.search(NAMES.norms, leaf)]
    assert {leaf for leaf in leaves if leaf.endswith("/scale")} < set(norms)
    assert {leaf.rpartition("/")[2] for leaf in norms} == {"scale", "bias"}
    assert len(norms) == 2 * (1 + 4 + 3 + 1 + 1)  # layer 0 has none before its attention
    others = {"attention_output": "attn/Wo", "feedforward_output": "mlp/Wo"}
    for field, pattern in NAMES.matrices._asdict().items():
        name = f"{others.get(field, 'attn/Wqkv')}/kernel"
        matched = [leaf for leaf in leaves if re.search(pattern, leaf)]
        assert matched == [leaf for leaf in leaves if leaf.endswith(name)]
        assert len(matched) == 4


def test_the_config_says_what_a_text_may_be():
    config = config_from_hf(read(), "c")
    assert (config.vocab_size, config.max_length, config.type_vocab_size) == (41, 24, 0)
    assert ModernBert(config).num_layers == 4
