"""RoBERTa and XLM-RoBERTa where they differ from BERT: positions, heads, and what is refused."""

import dataclasses
import json
import re
import shutil
from functools import partial
from itertools import chain
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.families.roberta import ROBERTA, XLM_ROBERTA, RobertaConfig, config_from_hf
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.registry import make_apply, parameter_shapes

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
HEADS = ("sequence", "token", "span", "masked_lm")
TINY = {"hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 1}


def load(case, **options):
    head = case.rpartition("-")[2]
    options = {"num_outputs": 2 if head == "span" else None} | options
    return load_pretrained(FAMILIES / case, head=head, **options)


@pytest.fixture(scope="module")
def sequence():
    return load("roberta-sequence")


@pytest.fixture(scope="module")
def batch():
    """Two rows of 7 and 4 tokens, padded to 7."""
    rng = np.random.default_rng(0)
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32)
    ids = rng.integers(5, 39, (2, 7)).astype(np.int32)
    return {"input_ids": np.where(mask > 0, ids, 1), "attention_mask": mask}


def outputs(model, batch):
    apply_fn = jax.jit(model.apply_fn, static_argnames="train")
    return np.asarray(apply_fn(model.params, batch, key=None, train=False))


def with_leaf(params, leaf, change):
    flat = dict(paths.flatten(params))
    flat[leaf] = jnp.asarray(change(np.array(flat[leaf])))
    return paths.unflatten(flat)


# --- Positions ------------------------------------------------------------------------------


@pytest.mark.parametrize(("pad", "first", "length"), [(1, 2, 22), (0, 1, 23), (3, 4, 20)])
def test_positions_begin_after_that_of_padding(pad, first, length):
    config = config_from_hf({"pad_token_id": pad, "max_position_embeddings": 24}, "config.json")
    assert config.first_position == first
    assert config.max_length == length


def test_the_longest_example_reads_all_positions_after_padding(sequence):
    length = sequence.config.max_length
    batch = {"input_ids": np.full((1, length), 7), "attention_mask": np.ones((1, length), int)}
    table = "roberta/embeddings/position_embeddings/embedding"

    def loss(params):
        x = sequence.module.apply({"params": params}, batch, method="embed")
        return jnp.square(x)[..., 0].sum()

    grads = paths.flatten(jax.jit(jax.grad(loss))(sequence.params))[table]
    read = np.abs(grads).max(axis=1) > 0
    np.testing.assert_array_equal(read, [False] * 2 + [True] * length)


def test_given_positions_count_from_zero(sequence, batch):
    counted = np.broadcast_to(np.arange(7, dtype=np.int32), (2, 7))
    plain = outputs(sequence, batch)
    np.testing.assert_array_equal(outputs(sequence, batch | {"position_ids": counted}), plain)
    shifted = outputs(sequence, batch | {"position_ids": counted + 1})
    assert np.abs(shifted - plain).min() > 1e-4


def test_padding_that_is_written_out_has_its_own_row():
    """As transformers and fairseq count: the cumulative sum over all but padding, plus its id."""
    config = config_from_hf({"pad_token_id": 1, "max_position_embeddings": 24}, "config.json")
    rows = [[0, 7, 1, 8, 2], [0, 1, 1, 2], [1, 9], [0, 5, 2]]

    def counted(row):
        real = np.array(row) != 1
        return np.where(real, np.cumsum(real) + 1, 1).tolist()

    for row in rows:
        found = config.positions({"input_ids": jnp.array([row])})
        assert found[0].tolist() == counted(row)
    packed = {
        "input_ids": jnp.array([[*chain(*rows), 1, 1]]),
        "position_ids": jnp.array([[*chain(*(range(len(row)) for row in rows)), 0, 0]]),
    }
    assert config.positions(packed)[0].tolist()[:-2] == [*chain(*map(counted, rows))]


@pytest.mark.parametrize("head", HEADS)
def test_padding_does_not_change_a_row(batch, head):
    model = load(f"roberta-{head}")
    short = {name: values[1:, :4] for name, values in batch.items()}
    padded = {name: np.pad(values, ((0, 0), (0, 18))) for name, values in short.items()}
    padded["input_ids"][:, 4:] = 33  # whatever stands in the padding
    found, wanted = outputs(model, padded), outputs(model, short)
    found = found if head == "sequence" else found[:, :4]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    padded["attention_mask"][:] = 1
    changed = outputs(model, padded)
    assert np.abs((changed if head == "sequence" else changed[:, :4]) - wanted).max() > 1e-3


# --- Heads ----------------------------------------------------------------------------------


def test_the_classifier_drops_before_both_of_its_matrices(sequence):
    config = dataclasses.replace(sequence.config, hidden_dropout_prob=0.0, classifier_dropout=0.5)
    module = ROBERTA.make_module("sequence", config, 12, jnp.float32)
    identity = {"kernel": jnp.eye(12), "bias": jnp.zeros(12)}
    params = sequence.params | {"classifier": {"dense": identity, "out_proj": identity}}
    x = jnp.full((200, 1, 12), 0.5)
    rngs = {"dropout": jax.random.key(0)}
    found = module.apply({"params": params}, x, {}, True, method="head", rngs=rngs)
    kept = 2 * np.tanh(2 * 0.5)  # each dropout doubles what it keeps
    is_kept = np.asarray(found) != 0
    np.testing.assert_allclose(found, np.where(is_kept, kept, 0), rtol=1e-5)
    assert abs(is_kept.mean() - 0.25) < 0.05


@pytest.mark.parametrize(
    ("rates", "differs"),
    [
        ({}, False),
        ({"hidden_dropout_prob": 0.5}, True),
        ({"attention_probs_dropout_prob": 0.5}, True),
        ({"classifier_dropout": 0.5}, True),
    ],
)
def test_each_dropout_rate_has_its_place(sequence, batch, rates, differs):
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = dataclasses.replace(sequence.config, num_hidden_layers=1, **(none | rates))
    apply_fn = make_apply(ROBERTA.make_module("sequence", config, 3, jnp.float32))
    dropped, exact = (
        jax.jit(partial(apply_fn, key=jax.random.key(0), train=train))(sequence.params, batch)
        for train in (True, False)
    )
    assert np.array_equal(dropped, exact) is not differs


def test_the_language_head_has_gelu_whatever_the_encoder_has():
    model = load("roberta-masked_lm")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 12)), jnp.float32)

    def head(config):
        module = ROBERTA.make_module("masked_lm", config, 0, jnp.float32)
        return module.apply({"params": model.params}, x, {}, method="head")

    relu = dataclasses.replace(model.config, hidden_act="relu")
    np.testing.assert_array_equal(head(relu), head(model.config))


def test_the_language_head_is_the_word_embeddings(batch):
    model = load("roberta-masked_lm")
    assert model.params["lm_head"].keys() == {"dense", "layer_norm", "bias"}
    x = jnp.ones((1, 2, 12))

    def head(params):
        return np.asarray(model.module.apply({"params": params}, x, batch, method="head"))

    leaf = "roberta/embeddings/word_embeddings/embedding"

    def change(words):
        words[3] += 1
        return words

    moved = np.abs(head(with_leaf(model.params, leaf, change)) - head(model.params)).max((0, 1))
    np.testing.assert_array_equal(np.nonzero(moved)[0], [3])


@pytest.mark.parametrize("head", ["sequence", "masked_lm"])
def test_bfloat16_products_keep_float32_logits(batch, head):
    half = load(f"roberta-{head}", compute_dtype=jnp.bfloat16)
    exact = outputs(load(f"roberta-{head}"), batch)
    found = outputs(half, batch)
    assert found.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(found, exact, atol=0.15)
    assert not np.array_equal(found, exact)


# --- Files ----------------------------------------------------------------------------------


def test_an_old_file_has_tensors_that_a_classifier_does_not_take(tmp_path):
    """As the files of roberta-base: of a masked language model, with a pooler and buffers."""
    folder = tmp_path / "base"
    shutil.copytree(FAMILIES / "roberta-masked_lm", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors |= {
        "roberta.pooler.dense.weight": np.zeros((12, 12), np.float32),
        "roberta.pooler.dense.bias": np.zeros(12, np.float32),
        "roberta.embeddings.position_ids": np.arange(24)[None],
        "lm_head.decoder.weight": tensors["roberta.embeddings.word_embeddings.weight"].copy(),
        "lm_head.decoder.bias": tensors["lm_head.bias"].copy(),
    }
    save_file(tensors, folder / "model.safetensors")
    model = load_pretrained(folder, class_names=["a", "b", "c"], key=jax.random.key(0))
    assert set(model.report.unused) == {
        "roberta.pooler.dense.weight",
        "roberta.pooler.dense.bias",
        "lm_head.bias",
        "lm_head.dense.weight",
        "lm_head.dense.bias",
        "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias",
    }
    assert model.report.new.keys() == {"classifier/dense", "classifier/out_proj"}
    language = load_pretrained(folder, head="masked_lm")
    assert set(language.report.unused) == {name for name in tensors if "pooler" in name}
    assert not language.report.new


def test_other_classes_leave_the_matrix_below_them():
    model = load("roberta-sequence", class_names=["a", "b"], key=jax.random.key(0))
    assert model.report.new.keys() == {"classifier/out_proj"}
    saved = load("roberta-sequence").params["classifier"]["dense"]["kernel"]
    np.testing.assert_array_equal(model.params["classifier"]["dense"]["kernel"], saved)


@pytest.mark.parametrize("family", [ROBERTA, XLM_ROBERTA])
@pytest.mark.parametrize("head", HEADS)
def test_architectures_are_those_of_transformers(family, head):
    folder = FAMILIES / f"{family.model_type}-{head}"
    architecture = family.heads[head].architecture
    if folder.exists():
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == [architecture]
    assert architecture.startswith("Roberta") is (family is ROBERTA)


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
        ("below", 0, 5),
    ],
)
def test_names_find_their_parameters(names, per_layer, others):
    config = RobertaConfig(num_hidden_layers=3, hidden_size=12, num_attention_heads=3)
    module = ROBERTA.make_module("masked_lm", config, 0, jnp.float32)
    known = ROBERTA.names._asdict() | ROBERTA.names.matrices._asdict()
    leaves = paths.flatten(parameter_shapes(module))
    found = [leaf for leaf in leaves if re.search(known[names], leaf)]
    assert len(found) == 3 * per_layer + others
    assert len([leaf for leaf in found if "/layer/1/" in leaf]) == per_layer


# --- What is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position_embedding_type": "relative_key"}, ["relative_key", "RoBERTa has absolute"]),
        ({"is_decoder": True}, ["RoBERTa as a decoder"]),
        ({"add_cross_attention": True}, ["RoBERTa as a decoder"]),
        ({"pad_token_id": -1}, ["pad_token_id is -1", "whole number from 0"]),
        ({"pad_token_id": "1"}, ["pad_token_id is '1'", "whole number from 0"]),
        ({"pad_token_id": 23}, ["max_position_embeddings is 24", "position 24"]),
        ({"vocab_size": 0}, ["vocab_size is 0", "whole number from 1"]),
        ({"hidden_size": 13}, ["13", "3 attention heads"]),
        ({"hidden_act": "swish"}, ["hidden_act is 'swish'"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings is 'no'", "true or false"]),
    ],
)
def test_bad_config(fields, words):
    good = TINY | {"max_position_embeddings": 24}
    config_from_hf(good, "some/config.json")
    with pytest.raises(UserError) as caught:
        config_from_hf(good | fields, "some/config.json")
    for word in ["some/config.json", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_only_language_modelling_needs_tied_embeddings(tmp_path, family):
    for head in ("masked_lm", "sequence"):
        folder = tmp_path / head
        shutil.copytree(FAMILIES / f"{family}-{head}", folder)
        config = json.loads((folder / "config.json").read_text())
        untied = json.dumps(config | {"tie_word_embeddings": False})
        (folder / "config.json").write_text(untied)
    assert not load_pretrained(tmp_path / "sequence").report.new
    with pytest.raises(UserError, match=r"tie_word_embeddings is False.*word embeddings"):
        load_pretrained(tmp_path / "masked_lm", head="masked_lm")
