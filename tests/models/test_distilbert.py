"""DistilBERT where it differs from BERT: fields, dropout, initial positions, heads."""

import dataclasses
import json
import re
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.families.distilbert import DISTILBERT, DistilBertConfig, config_from_hf
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.registry import make_apply, parameter_shapes

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
HEADS = ("sequence", "token", "span", "masked_lm")
OUTPUTS = {"sequence": 3, "token": 3, "span": 2, "masked_lm": 0}
TINY = {"dim": 12, "n_heads": 3, "n_layers": 2, "max_position_embeddings": 24}


def load(head, folder=None, **options):
    options = {"num_outputs": 2 if head == "span" else None} | options
    return load_pretrained(folder or FAMILIES / f"distilbert-{head}", head=head, **options)


@pytest.fixture(scope="module")
def sequence():
    return load("sequence")


@pytest.fixture(scope="module")
def batch():
    """Two rows of 7 and 4 tokens, padded to 7."""
    rng = np.random.default_rng(0)
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32)
    ids = rng.integers(5, 39, (2, 7)).astype(np.int32)
    return {"input_ids": ids * mask, "attention_mask": mask}


def outputs(model, batch):
    apply_fn = jax.jit(model.apply_fn, static_argnames="train")
    return np.asarray(apply_fn(model.params, batch, key=None, train=False))


# --- Inputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_padding_does_not_change_a_row(batch, head):
    model = load(head)
    short = {name: values[1:, :4] for name, values in batch.items()}
    padded = {name: np.pad(values, ((0, 0), (0, 20))) for name, values in short.items()}
    padded["input_ids"][:, 4:] = 33  # whatever stands in the padding
    found, wanted = outputs(model, padded), outputs(model, short)
    found = found if head == "sequence" else found[:, :4]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    padded["attention_mask"][:] = 1
    changed = outputs(model, padded)
    assert np.abs((changed if head == "sequence" else changed[:, :4]) - wanted).max() > 1e-3


def test_positions_count_from_zero_unless_given(sequence, batch):
    counted = np.broadcast_to(np.arange(7, dtype=np.int32), (2, 7))
    plain = outputs(sequence, batch)
    np.testing.assert_array_equal(outputs(sequence, batch | {"position_ids": counted}), plain)
    shifted = outputs(sequence, batch | {"position_ids": counted + 1})
    assert np.abs(shifted - plain).min() > 1e-4


def test_token_types_are_not_read(sequence, batch):
    typed = batch | {"token_type_ids": np.ones((2, 7), np.int32)}
    np.testing.assert_array_equal(outputs(sequence, typed), outputs(sequence, batch))
    assert sequence.config.type_vocab_size == 0
    assert sequence.config.max_length == 24


def test_norms_add_little_to_the_variance(sequence):
    """1e-12, which no field says: with BERT-like 1e-5 these embeddings would all but vanish."""
    flat = dict(paths.flatten(sequence.params))
    folder = "distilbert/embeddings"
    flat[f"{folder}/word_embeddings/embedding"] *= 1e-5
    flat[f"{folder}/position_embeddings/embedding"] *= 0
    flat[f"{folder}/LayerNorm/scale"] = jnp.ones(12)
    flat[f"{folder}/LayerNorm/bias"] = jnp.zeros(12)
    variables = {"params": paths.unflatten(flat)}
    x = sequence.module.apply(variables, {"input_ids": jnp.array([[7, 8]])}, method="embed")
    assert np.std(x, axis=-1).min() > 0.9


# --- Dropout --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "readers"),
    [
        ("sequence", {"dropout", "attention_dropout", "seq_classif_dropout"}),
        ("token", {"dropout", "attention_dropout"}),
        ("span", {"dropout", "attention_dropout", "qa_dropout"}),
        ("masked_lm", {"dropout", "attention_dropout"}),
    ],
)
def test_each_dropout_rate_has_its_place(batch, head, readers):
    model = load(head)
    rates = ("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout")
    for rate in rates:
        only = dict.fromkeys(rates, 0.0) | {"n_layers": 1, rate: 0.5}
        config = dataclasses.replace(model.config, **only)
        apply_fn = make_apply(DISTILBERT.make_module(head, config, OUTPUTS[head], jnp.float32))
        dropped, exact = (
            jax.jit(partial(apply_fn, key=jax.random.key(0), train=train))(model.params, batch)
            for train in (True, False)
        )
        assert np.array_equal(dropped, exact) is (rate not in readers), rate


def test_attention_has_no_dropout_before_its_residual(sequence, batch):
    flat = dict(paths.flatten(sequence.params))
    config = dataclasses.replace(sequence.config, dropout=0.5, attention_dropout=0.0)
    module = DISTILBERT.make_module("sequence", config, 3, jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 12)), jnp.float32)

    def run(train):
        variables = {"params": paths.unflatten(flat)}
        rngs = {"dropout": jax.random.key(0)}
        return module.apply(variables, x, batch, 0, 1, train, method="run_layers", rngs=rngs)

    assert not np.array_equal(run(True), run(False))  # that of the feed-forward block
    for leaf in flat:
        if "/lin2/" in leaf:
            flat[leaf] = jnp.zeros_like(flat[leaf])
    np.testing.assert_array_equal(run(True), run(False))


def test_a_token_drops_at_the_rate_of_the_encoder(batch):
    model = load("token")
    x = jnp.ones((2, 7, 12))

    def head(rate):
        config = dataclasses.replace(model.config, dropout=rate)
        module = DISTILBERT.make_module("token", config, 3, jnp.float32)
        rngs = {"dropout": jax.random.key(0)}
        return module.apply({"params": model.params}, x, batch, True, method="head", rngs=rngs)

    assert np.ptp(head(0.0), axis=(0, 1)).max() == 0
    assert np.ptp(head(0.5), axis=(0, 1)).min() > 1e-3


# --- Initial values -------------------------------------------------------------------------


def table_of_positions(**fields):
    config = DistilBertConfig(vocab_size=11, **(TINY | fields))
    module = DISTILBERT.make_module("token", config, 3, jnp.float32)
    batch = {"input_ids": jnp.zeros((1, 1), int), "attention_mask": jnp.ones((1, 1), int)}
    params = jax.jit(module.init)(jax.random.key(0), batch)["params"]["distilbert"]["embeddings"]
    return np.asarray(params["position_embeddings"]["embedding"])


@pytest.mark.parametrize("width", [12, 15])
def test_sinusoidal_positions_are_how_they_begin(width):
    found = table_of_positions(sinusoidal_pos_embds=True, dim=width)
    for position in (0, 1, 23):
        for pair in range(width // 2):
            angle = position / 10000 ** (2 * pair / width)
            np.testing.assert_allclose(found[position, 2 * pair], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(found[position, 2 * pair + 1], np.cos(angle), atol=1e-6)


def test_learned_positions_begin_at_random():
    spread = table_of_positions(initializer_range=0.5).std()
    assert 0.4 < spread < 0.6


def test_a_file_has_its_positions_whatever_they_began_as(tmp_path, sequence, batch):
    folder = tmp_path / "model"
    shutil.copytree(FAMILIES / "distilbert-sequence", folder)
    rewrite(folder, sinusoidal_pos_embds=True)
    model = load("sequence", folder)
    np.testing.assert_array_equal(outputs(model, batch), outputs(sequence, batch))


# --- Files and fields -----------------------------------------------------------------------


def rewrite(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_the_tied_matrix_of_a_language_model_is_not_unused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FAMILIES / "distilbert-masked_lm", folder)
    tensors = load_file(folder / "model.safetensors")
    words = tensors["distilbert.embeddings.word_embeddings.weight"]
    tensors["vocab_projector.weight"] = words.copy()
    tensors["distilbert.embeddings.position_ids"] = np.arange(24)[None]
    save_file(tensors, folder / "model.safetensors")
    assert not load("masked_lm", folder).report.unused
    model = load("sequence", folder, class_names=["a", "b"], key=jax.random.key(0))
    assert model.report.new.keys() == {"pre_classifier", "classifier"}
    unused = {name.partition(".")[0] for name in model.report.unused}
    assert unused == {"vocab_transform", "vocab_layer_norm", "vocab_projector"}
    assert "vocab_projector.weight" not in model.report.unused


def test_only_language_modelling_needs_tied_embeddings(tmp_path):
    for head in ("masked_lm", "sequence"):
        shutil.copytree(FAMILIES / f"distilbert-{head}", tmp_path / head)
        rewrite(tmp_path / head, tie_word_embeddings=False)
    assert not load("sequence", tmp_path / "sequence").report.new
    with pytest.raises(UserError, match=r"tie_word_embeddings is False.*DistilBERT is the word"):
        load("masked_lm", tmp_path / "masked_lm")


def test_berts_names_of_fields_are_taken_first():
    named = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 5}
    config = config_from_hf(TINY | named, "config.json")
    assert (config.dim, config.n_heads, config.n_layers) == (24, 2, 5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": 13}, ["13", "3 attention heads"]),
        ({"num_attention_heads": 5}, ["12", "5 attention heads"]),
        ({"n_layers": 0}, ["n_layers is 0", "whole number from 1"]),
        ({"activation": "gelu_fast"}, ["activation is 'gelu_fast'", "Nearest: gelu"]),
        ({"dropout": "0.1"}, ["dropout is '0.1'", "a number"]),
        ({"sinusoidal_pos_embds": 1}, ["sinusoidal_pos_embds is 1", "true or false"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings is 'no'", "true or false"]),
    ],
)
def test_bad_config(fields, words):
    config_from_hf(TINY, "some/config.json")
    with pytest.raises(UserError) as caught:
        config_from_hf(TINY | fields, "some/config.json")
    for word in ["some/config.json", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("head", HEADS)
def test_architectures_are_those_of_transformers(head):
    config = json.loads((FAMILIES / f"distilbert-{head}" / "config.json").read_text())
    assert config["architectures"] == [DISTILBERT.heads[head].architecture]


@pytest.mark.parametrize("head", ["sequence", "masked_lm"])
def test_bfloat16_products_keep_float32_logits(batch, head):
    half = load(head, compute_dtype=jnp.bfloat16)
    found, exact = outputs(half, batch), outputs(load(head), batch)
    assert found.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(found, exact, atol=0.15)
    assert not np.array_equal(found, exact)


@pytest.mark.parametrize(
    ("names", "per_layer", "others"),
    [
        ("norms", 4, 4),
        ("queries", 1, 0),
        ("keys", 1, 0),
        ("values", 1, 0),
        ("attention_output", 1, 0),
        ("feedforward_output", 1, 0),
        ("layers", 16, 0),
        ("below", 0, 4),
    ],
)
def test_names_find_their_parameters(names, per_layer, others):
    config = DistilBertConfig(vocab_size=11, **TINY)
    module = DISTILBERT.make_module("masked_lm", config, 0, jnp.float32)
    known = DISTILBERT.names._asdict() | DISTILBERT.names.matrices._asdict()
    leaves = paths.flatten(parameter_shapes(module))
    found = [leaf for leaf in leaves if re.search(known[names], leaf)]
    assert len(found) == 2 * per_layer + others
    assert len([leaf for leaf in found if "/layer/1/" in leaf]) == per_layer
