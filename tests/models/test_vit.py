"""ViT: sizes of images, variants, dropout, precision and refusals."""

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
from jaxtune.models.design import choose_outputs, make_design
from jaxtune.models.families.vit import NAMES
from jaxtune.models.pretrained import load_pretrained, load_weights
from jaxtune.models.source import read_source

ROOT = Path(__file__).parents[1] / "golden" / "families"
CASE = ROOT / "vit-image"


def variant(tmp_path, **changes):
    """A copy of the case with other fields in its config.json."""
    folder = tmp_path / "variant"
    shutil.copytree(CASE, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.fixture(scope="module")
def model():
    return load_pretrained(CASE, head="image")


@pytest.fixture(scope="module")
def images():
    reference = load_file(CASE / "reference.safetensors")
    return jnp.asarray(reference["pixel_values"].transpose(0, 2, 3, 1))  # [b h w c]


def logits_of(model, images, **options):
    options = {"key": None, "train": False} | options
    return np.asarray(model.apply_fn(model.params, {"pixel_values": images}, **options))


# logits of transformers 5.24.0 with these fields and the case's weights; for image_size 14 the
# images have two more rows and columns of 5.0 at the end
VARIANTS = {
    "relu": (
        {"hidden_act": "relu", "layer_norm_eps": 0.1},
        [
            [0.201845, -0.626298, 1.362186],
            [0.320219, -0.791424, 0.801245],
            [0.191327, -0.634284, 1.205463],
        ],
    ),
    "no biases": (
        {"qkv_bias": False},
        [
            [0.069155, -0.745888, 1.412437],
            [0.393865, -0.622260, 0.604813],
            [0.388213, -0.909493, 1.020652],
        ],
    ),
    "remainder": (
        {"image_size": 14},
        [
            [0.199668, -0.724414, 1.478990],
            [0.396637, -0.833058, 0.961124],
            [0.190035, -0.733977, 1.327738],
        ],
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_those_of_torch(name, images, tmp_path):
    changes, wanted = VARIANTS[name]
    model = load_pretrained(variant(tmp_path, **changes), head="image")
    if "image_size" in changes:
        images = jnp.pad(images, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=5.0)
    np.testing.assert_allclose(logits_of(model, images), wanted, atol=2e-5)
    biases = [leaf for leaf in paths.flatten(model.params) if "attention/attention/query/b" in leaf]
    assert bool(biases) == changes.get("qkv_bias", True)


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_prefix_and_the_rest_are_the_whole(model, images, cut):
    def split(module, batch):
        x = module.run_layers(module.embed(batch), batch, 0, cut)
        return module.suffix(x[:, :1] if cut == 3 else x, batch, cut)

    batch = {"pixel_values": images}
    parts = model.module.apply({"params": model.params}, batch, method=split)
    # The whole computes of the last layer what the head reads, and nothing else.
    tolerance = 1e-6 if cut == 3 else 0
    np.testing.assert_allclose(parts, logits_of(model, images), atol=tolerance, rtol=0)


def test_rows_do_not_see_each_other(model, images):
    filled = jnp.concatenate([images[:1], 50 + images])
    np.testing.assert_allclose(
        logits_of(model, filled)[:1], logits_of(model, images)[:1], atol=1e-6
    )
    assert np.abs(logits_of(model, filled)[1:] - logits_of(model, images)).max() > 0.01


@pytest.mark.parametrize("place", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_acts_in_training_only(place, images, tmp_path, model):
    dropped = load_pretrained(variant(tmp_path, **{place: 0.5}), head="image")
    plain = logits_of(model, images)
    keys = [jax.random.key(i) for i in range(2)]
    first, second = (logits_of(dropped, images, key=key, train=True) for key in keys)
    assert np.abs(first - plain).max() > 0.01
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(logits_of(dropped, images), plain)
    np.testing.assert_array_equal(logits_of(model, images, key=keys[0], train=True), plain)


def test_dropout_is_where_transformers_has_it(images, tmp_path):
    """After the embeddings, and at the end of both halves of a layer."""
    model = load_pretrained(variant(tmp_path, hidden_dropout_prob=0.25), head="image")
    variables, batch = {"params": model.params}, {"pixel_values": jnp.tile(images, (8, 1, 1, 1))}

    def run(module, batch):
        x = module.embed(batch, True)
        return x, module.run_layers(0 * x, batch, 0, 1, True)

    x, y = model.module.apply(variables, batch, rngs={"dropout": jax.random.key(0)}, method=run)
    assert np.mean(x == 0) == pytest.approx(0.25, abs=0.02)
    assert np.mean(y == 0) == pytest.approx(0.25**2, abs=0.02)  # both halves dropped


def test_bfloat16_products_give_float32_logits(model, images):
    half = load_pretrained(CASE, head="image", compute_dtype=jnp.bfloat16)
    logits, plain = logits_of(half, images), logits_of(model, images)
    assert logits.dtype == np.float32
    assert 0 < np.abs(logits - plain).max() < 0.05


def test_the_pooler_of_a_base_model_is_unused(tmp_path):
    folder = variant(tmp_path)
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"vit.pooler.dense.bias": np.zeros(12, np.float32)}, file)
    model = load_pretrained(folder, head="image")
    assert model.report.unused == ("vit.pooler.dense.bias",)


def test_names_cover_the_parameters(model):
    leaves = list(paths.flatten(model.params))
    layers = [found for leaf in leaves if (found := re.search(NAMES.layers, leaf))]
    assert {int(found[1]) for found in layers} == {0, 1, 2}
    below = [leaf for leaf in leaves if re.search(NAMES.below, leaf)]
    assert len(below) == 4
    rest = {leaf.rpartition("/")[0] for leaf in leaves if leaf not in below}
    assert rest >= {"vit/layernorm", "classifier"}
    assert len(layers) + len(below) + 4 == len(leaves)
    assert sum(bool(re.search(NAMES.norms, leaf)) for leaf in leaves) == 2 * (2 * 3 + 1)
    matched = {
        field: sum(bool(re.search(pattern, leaf)) for leaf in leaves)
        for field, pattern in NAMES.matrices._asdict().items()
    }
    assert matched == dict.fromkeys(NAMES.matrices._fields, 3)


def test_from_scratch_is_drawn_with_the_range(tmp_path):
    folder = variant(tmp_path, initializer_range=0.1)
    source = read_source(folder)
    design = make_design(source, "image", choose_outputs("image", source.hf_config))
    model = load_weights(design, key=jax.random.key(0), from_scratch=True)
    flat = paths.flatten(model.params)
    for leaf in ("cls_token", "position_embeddings", "patch_embeddings/projection/kernel"):
        assert np.std(flat[f"vit/embeddings/{leaf}"]) == pytest.approx(0.1, rel=0.5)
    np.testing.assert_array_equal(flat["vit/embeddings/patch_embeddings/projection/bias"], 0)


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 9, 16, 3), (2, 8, 8, 3)])
def test_images_of_another_size_are_refused_at_trace_time(model, shape):
    with pytest.raises(UserError, match=rf"images of {shape[1]} x {shape[2]} .* for 12 x 12"):
        jax.eval_shape(
            lambda x: model.apply_fn(model.params, {"pixel_values": x}, key=None, train=False),
            jax.ShapeDtypeStruct(shape, jnp.float32),
        )


def test_images_with_other_channels_are_refused(model):
    with pytest.raises(UserError, match=r"expected \[batch, height, width, 3\]"):
        logits_of(model, jnp.zeros((2, 12, 12, 1)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head_dim": 5}, "head_dim is 5, which is not supported"),
        ({"patch_size": 13}, "patch_size 13 is larger than image_size 12"),
        ({"image_size": [12, 24]}, "image_size is [12, 24], expected a whole number"),
        ({"num_attention_heads": 5}, "not a multiple of the 5"),
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ({"qkv_bias": "yes"}, "qkv_bias is 'yes'"),
    ],
)
def test_refused_configs(changes, words, tmp_path):
    with pytest.raises(UserError, match=re.escape(words)):
        read_source(variant(tmp_path, **changes))
