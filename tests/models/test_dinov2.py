"""DINOv2's positions for other sizes, branches that are left out, and configs that are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxtune.core.dropout import noise_ids_of
from jaxtune.core.errors import UserError
from jaxtune.data.images.preprocessor_config import load_image_processor
from jaxtune.models.families import convnext, dinov2_config
from jaxtune.models.registry import FAMILIES, make_apply, parameter_shapes
from jaxtune.models.resample import cubic, resample, smooth_cubic
from jaxtune.models.residual import DropPath


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (7, 9), (16, 2)])
def test_smooth_resampling_is_pillows(shape):
    """Whose bicubic filter has a = -0.5 and is as wide as what it takes together."""
    grid = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)
    found = resample(jnp.asarray(grid), shape, smooth_cubic)
    for i in range(2):
        wanted = Image.fromarray(grid[:, :, i]).resize(shape[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found[:, :, i], np.asarray(wanted), atol=1e-5)


@pytest.mark.parametrize("taps", [cubic, smooth_cubic])
@pytest.mark.parametrize(("old", "new"), [(37, 16), (4, 3), (4, 9), (1, 5), (5, 1)])
def test_a_plane_stays_one(taps, old, new):
    """Each new cell is a mean of old ones; and away from the edges a slope stays as it is."""
    weights = taps(old, new)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    places = (np.arange(new) + 0.5) * old / new - 0.5
    reach = 2 * max(old / new, 1)
    inside = (places >= reach) & (places <= old - 1 - reach)
    np.testing.assert_allclose((weights @ np.arange(old))[inside], places[inside], atol=0.06)


def test_a_grid_of_its_own_size_is_given_back():
    grid = jnp.ones((3, 4, 2))
    assert resample(grid, (3, 4), cubic) is grid


def test_a_branch_is_left_out_for_whole_examples():
    ids = noise_ids_of(jnp.arange(4000)[:, None], jnp.arange(3))  # [b t]
    x = jnp.ones((4000, 3, 2))
    drop = DropPath(0.25)
    found = np.asarray(drop.apply({}, x, ids, rngs={"dropout": jax.random.key(0)}))
    assert {*np.unique(found)} == {0.0, np.float32(1 / 0.75)}
    assert (found == found[:, :1, :1]).all()
    assert (found[:, 0, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert drop.apply({}, x, None) is x
    order = np.arange(4000)[::-1]
    again = drop.apply({}, x, ids[order], rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(found[order], again)  # by example, wherever it lies


@pytest.mark.parametrize("family", ["dinov2", "convnext"])
def test_a_rate_drops_in_training_alone(family):
    part = FAMILIES[family]
    fields = {"drop_path_rate": 0.5, "patch_size": 2, "image_size": 4}
    fields |= {"hidden_sizes": [8, 8], "depths": [1, 2], "num_stages": 2}
    fields |= {"layer_scale_init_value": 1.0, "hidden_size": 8, "num_attention_heads": 2}
    config = part.config_from_hf(fields | {"num_hidden_layers": 2}, "config.json")
    module = part.make_module("image", config, 3, jnp.float32)
    params = module.init(jax.random.key(0), module.example_batch())["params"]
    params = jax.tree.map(lambda x: x + 0.1, params)
    apply_fn, batch = make_apply(module), {"pixel_values": jnp.ones((64, 4, 4, 3))}
    calm = apply_fn(params, batch, key=None, train=False)
    assert np.ptp(calm, axis=0).max() < 1e-5
    noisy = apply_fn(params, batch, key=jax.random.key(1), train=True)
    assert len(np.unique(np.round(noisy[:, 0], 4))) > 2


@pytest.mark.parametrize(
    ("read", "fields", "words"),
    [
        (dinov2_config.config_from_hf, {"patch_size": 300}, "patch_size 300 is larger than"),
        (dinov2_config.config_from_hf, {"drop_path_rate": 1.0}, "drop_path_rate is 1, expected"),
        (dinov2_config.config_from_hf, {"hidden_size": 770}, "not a multiple of the 12"),
        (dinov2_config.config_from_hf, {"mlp_ratio": -1}, "mlp_ratio is -1"),
        (dinov2_config.config_with_registers, {"num_register_tokens": 0}, "num_register_tokens"),
        (convnext.config_from_hf, {"num_stages": 3}, "depths has 4 stages and num_stages 3"),
        (convnext.config_from_hf, {"hidden_sizes": [8]}, "depths has 4 stages and hidden_sizes 1"),
        (convnext.config_from_hf, {"drop_path_rate": -0.1}, "drop_path_rate is -0.1"),
    ],
)
def test_configs_that_are_refused(read, fields, words):
    with pytest.raises(UserError, match=words):
        read(fields, "config.json")


@pytest.mark.parametrize("family", ["dinov2", "convnext"])
def test_images_that_are_too_small_are_refused(family):
    part = FAMILIES[family]
    module = part.make_module("image", part.config_from_hf({}, ""), 2, jnp.float32)
    batch = {"pixel_values": jax.ShapeDtypeStruct((1, 8, 40, 3), jnp.float32)}
    with pytest.raises(UserError, match="8 x 40 pixels"):
        jax.eval_shape(
            lambda params, batch: make_apply(module)(params, batch, key=None, train=False),
            parameter_shapes(module),
            batch,
        )


def test_the_processor_of_published_dinov2_makes_224_pixels(tmp_path):
    fields = {
        **{"crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "resample": 3},
        **{"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True},
        **{"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        **{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}},
        "rescale_factor": 0.00392156862745098,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    config = dinov2_config.config_from_hf({"image_size": 518}, "config.json")
    processor = load_image_processor(tmp_path, getattr(config, "image_size", None))
    assert processor.shape == (224, 224)
    assert processor.resized((512, 384)) == (341, 256)
