"""ResNet: training against torch, its statistics, variants and refusals."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processor import has
from safetensors.numpy import load_file

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models import convert
from jaxtune.models.batch_norm import BatchNorm
from jaxtune.models.design import choose_outputs, make_design
from jaxtune.models.families.resnet import NAMES
from jaxtune.models.pretrained import load_pretrained, load_weights
from jaxtune.models.registry import make_apply
from jaxtune.models.source import read_source

ROOT = Path(__file__).parents[1] / "golden" / "families"
CASES = ("resnet-image", "resnet-basic")
SLACK = 1 if has("avx512f") else 2
"""Of bounds: shorter vectors sum these convolutions in another order than the reference."""


def load(case, folder=None):
    model = load_pretrained(folder or ROOT / case, head="image")
    return model, load_file(ROOT / case / "reference.safetensors")


def variant(tmp_path, case, **changes):
    """A copy of a case with other fields in its config.json."""
    folder = tmp_path / "variant"
    shutil.copytree(ROOT / case, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def images_of(reference):
    return jnp.asarray(reference["pixel_values"].transpose(0, 2, 3, 1))  # [b h w c]


def with_filling(images):
    """Two more rows that only fill the shape, far from what is real."""
    filling = 50 + 9 * jax.random.normal(jax.random.key(3), (2, *images.shape[1:]))
    return {
        "pixel_values": jnp.concatenate([images, filling]),
        "weight": jnp.array([1.0, 1.0, 1.0, 0.0, 0.0]),
    }


def outputs(model, batch):
    apply_fn = jax.jit(model.apply_fn, static_argnames="train")
    return apply_fn(model.params, batch, key=None, train=False)


def train_pass(model, batch, labels):
    """Loss over the labelled rows, logits, new statistics and gradients of a training pass."""

    def loss_fn(params):
        logits, new = model.module.apply({"params": params}, batch, True, mutable=["statistics"])
        real = jax.nn.log_softmax(logits[: len(labels)])
        picked = jnp.take_along_axis(real, jnp.asarray(labels)[:, None], -1)
        return -jnp.mean(picked), (logits, new["statistics"])

    grad_fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, (logits, statistics)), grads = grad_fn(model.params)
    return loss, logits, paths.flatten(statistics), paths.flatten(grads)


def assert_gradients(found, wanted):
    """To 1e-4 of the largest of each leaf, and of a thousandth of the largest of all."""
    largest = max(np.abs(value).max() for value in wanted.values())
    for name, value in wanted.items():
        scale = max(np.abs(value).max(), 1e-3 * largest)
        assert np.abs(np.asarray(found[name]) - value).max() <= 1e-4 * SLACK * scale, name


@pytest.mark.parametrize("filled", [False, True], ids=["real", "filled"])
@pytest.mark.parametrize("case", CASES)
def test_training_is_that_of_torch(case, filled):
    model, reference = load(case)
    images = images_of(reference)
    batch = with_filling(images) if filled else {"pixel_values": images}
    loss, logits, statistics, grads = train_pass(model, batch, reference["labels"])
    np.testing.assert_allclose(logits[:3], reference["train/logits"], atol=2e-5 * SLACK, rtol=0)
    np.testing.assert_allclose(loss, reference["train/loss"], rtol=1e-4)
    prefix = "train/grad/"
    wanted = {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
    found = {convert.torch_name(k): convert.to_file(k, np.asarray(v)) for k, v in grads.items()}
    running = {name for name in found if "running" in name}
    assert set(found) - running == set(wanted)
    assert_gradients(found, wanted)
    names = {convert.torch_name(leaf): leaf for leaf in statistics}
    assert set(names) == {k.removeprefix("train/") for k in reference if "running" in k} == running
    for name, leaf in names.items():
        np.testing.assert_allclose(
            statistics[leaf], reference[f"train/{name}"], atol=1e-5, rtol=1e-5, err_msg=leaf
        )
        assert np.abs(statistics[leaf] - paths.flatten(model.params)[leaf]).max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_rows_without_weight_change_nothing(case):
    model, reference = load(case)
    images = images_of(reference)
    filled = with_filling(images)
    plain = train_pass(model, {"pixel_values": images}, reference["labels"])
    with_weight = train_pass(model, filled, reference["labels"])
    unweighted = {"pixel_values": filled["pixel_values"]}
    without = train_pass(model, unweighted, reference["labels"])
    np.testing.assert_allclose(with_weight[1][:3], plain[1], atol=2e-6)
    for i in (2, 3):
        assert_gradients(with_weight[i], {k: np.asarray(v) for k, v in plain[i].items()})
    assert np.abs(without[1][:3] - plain[1]).max() > 0.01  # so the filling would be seen
    assert all(np.abs(without[2][leaf] - plain[2][leaf]).max() > 1e-3 for leaf in plain[2])


def test_statistics_stay_where_they_are_not_trained():
    model, reference = load("resnet-image")
    images = images_of(reference)
    batch, variables = {"pixel_values": images}, {"params": model.params}
    frozen = model.design.source.family.make_module(
        "image", dataclasses.replace(model.config, train_statistics=False), 3, jnp.float32
    )
    logits, new = frozen.apply(variables, batch, True, mutable=["statistics"])
    assert not new
    np.testing.assert_array_equal(
        logits, make_apply(model.module)(model.params, batch, key=None, train=False)
    )
    _, new = model.module.apply(variables, batch, False, mutable=["statistics"])
    assert not new
    assert np.abs(model.module.apply(variables, batch, True) - logits).max() > 0.01


@pytest.mark.parametrize(("rows", "side"), [(0, 3), (1, 1)], ids=["no row", "one value"])
def test_too_few_values_leave_the_statistics(rows, side):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 4))
    norm = BatchNorm(True, jnp.float32)
    params = {name: jnp.full(4, 1.0 + i) for i, name in enumerate(("scale", "bias", "mean", "var"))}
    real = jnp.arange(2) < rows

    def loss_fn(params, x):
        y, new = norm.apply({"params": params}, x, real, True, mutable=["statistics"])
        return jnp.sum(y**2), new["statistics"]

    grads, new = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(params, x)
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(grads))
    assert set(new) == {"mean", "var"}
    for name, value in new.items():
        np.testing.assert_array_equal(value, params[name])


def test_statistics_are_float32_in_bfloat16():
    """Of a channel far from 0, whose variance bfloat16 could not hold."""
    x = 100 + jax.random.normal(jax.random.key(0), (8, 5, 5, 2))
    norm = BatchNorm(True, jnp.bfloat16, momentum=1.0)
    params = {"scale": jnp.ones(2), "bias": jnp.zeros(2), "mean": jnp.ones(2), "var": jnp.ones(2)}
    y, new = norm.apply({"params": params}, x, jnp.ones(8, bool), True, mutable=["statistics"])
    assert y.dtype == jnp.bfloat16
    assert new["statistics"]["var"].dtype == jnp.float32
    np.testing.assert_allclose(new["statistics"]["mean"], jnp.mean(x, (0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(new["statistics"]["var"], jnp.var(x, (0, 1, 2), ddof=1), rtol=1e-4)


def test_bfloat16_products_give_float32_logits():
    plain, reference = load("resnet-image")
    batch = {"pixel_values": images_of(reference)}
    model = load_pretrained(ROOT / "resnet-image", head="image", compute_dtype=jnp.bfloat16)
    logits = jax.jit(model.apply_fn, static_argnames="train")(
        model.params, batch, key=None, train=False
    )
    wanted = outputs(plain, batch)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - wanted).max() < 0.05
    states = model.module.apply({"params": model.params}, batch, method="hidden_states")
    assert {state.dtype for state in states} == {jnp.dtype(jnp.bfloat16)}


# logits less the last bias, from transformers 5.24.0 with these fields and the case's weights
VARIANTS = {
    "bottleneck": (
        "resnet-image",
        {"hidden_act": "gelu", "downsample_in_bottleneck": True, "downsample_in_first_stage": True},
        [
            [-0.609407, -1.673444, -0.169088],
            [-0.599744, -1.813883, -0.419982],
            [-0.634092, -1.623921, -0.231235],
        ],
    ),
    "basic": (
        "resnet-basic",
        {"hidden_act": "gelu", "downsample_in_first_stage": False},
        [
            [-0.362331, 0.184572, 0.016172],
            [-0.346475, 0.207261, 0.020341],
            [-0.328284, 0.173292, 0.018114],
        ],
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_those_of_torch(name, tmp_path):
    case, changes, wanted = VARIANTS[name]
    model, reference = load(case, variant(tmp_path, case, **changes))
    batch = {"pixel_values": images_of(reference)}
    logits = jax.jit(model.apply_fn, static_argnames="train")(
        model.params, batch, key=None, train=False
    )
    bias = model.params["classifier"]["1"]["bias"]
    np.testing.assert_allclose(logits - bias, wanted, atol=2e-5)


@pytest.mark.parametrize(("in_first", "sides"), [(True, [5, 5, 5]), (False, [10, 5, 5])])
def test_where_a_bottleneck_strides(in_first, sides, tmp_path):
    folder = variant(tmp_path, "resnet-image", downsample_in_bottleneck=in_first)
    model = load_pretrained(folder, head="image")
    batch = {"pixel_values": jnp.ones((1, 40, 40, 3))}  # 10 x 10 after the stem
    _, seen = model.module.apply(
        {"params": model.params}, batch, mutable=["intermediates"], capture_intermediates=True
    )
    stage = seen["intermediates"]["resnet"]["encoder"]["stages"]["1"]
    inside = stage["layers"]["0"]["layer"]
    found = [inside[str(i)]["convolution"]["__call__"][0].shape[1] for i in range(3)]
    assert found == sides


def test_names_cover_the_parameters():
    model, _ = load("resnet-basic")
    leaves = list(paths.flatten(model.params))
    layers = [re.search(NAMES.layers, leaf) for leaf in leaves]
    places = sorted({tuple(map(int, found.groups())) for found in layers if found})
    assert places == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert len(places) == sum(model.config.depths)
    below = {leaf for leaf in leaves if re.search(NAMES.below, leaf)}
    head = {leaf for leaf in leaves if leaf.startswith("classifier/1/")}
    assert len(below) == 5
    assert len(head) == 2
    assert len(below) + len(head) + sum(map(bool, layers)) == len(leaves)
    norms = {leaf for leaf in leaves if re.search(NAMES.norms, leaf)}
    statistics = {leaf for leaf in leaves if re.search(NAMES.statistics, leaf)}
    assert {leaf.rpartition("/")[2] for leaf in norms} == {"scale", "bias"}
    assert {leaf.rpartition("/")[2] for leaf in statistics} == {"mean", "var"}
    assert len(norms) == len(statistics) == 2 * sum("normalization/mean" in leaf for leaf in leaves)


def test_from_scratch_is_drawn_as_torch_draws():
    source = read_source(ROOT / "resnet-image")
    design = make_design(source, "image", choose_outputs("image", source.hf_config))
    model = load_weights(design, key=jax.random.key(0), from_scratch=True)
    flat = paths.flatten(model.params)
    stem = flat["resnet/embedder/embedder/convolution/kernel"]
    assert np.std(stem) == pytest.approx((2 / (7 * 7 * 6)) ** 0.5, rel=0.1)  # fan out
    for name, value in (("mean", 0), ("var", 1), ("scale", 1), ("bias", 0)):
        np.testing.assert_array_equal(flat[f"resnet/embedder/embedder/normalization/{name}"], value)
    bound = 12**-0.5
    for name in ("kernel", "bias"):
        largest = np.abs(flat[f"classifier/1/{name}"]).max()
        assert 0.1 * bound < largest <= bound


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_type": "wide"}, "layer_type is 'wide', expected one of basic, bottleneck"),
        ({"depths": [2]}, "depths has 1 stages and hidden_sizes 2"),
        ({"depths": [2, 0]}, "depths is"),
        ({"hidden_sizes": [3, 8]}, "hidden_sizes has 3, expected at least 4"),
        ({"hidden_sizes": 8}, "hidden_sizes is 8, expected a list"),
        ({"hidden_act": "relu7"}, "hidden_act is 'relu7'"),
        ({"num_channels": "3"}, "num_channels is '3'"),
        ({"downsample_in_bottleneck": 1}, "downsample_in_bottleneck is 1"),
    ],
)
def test_refused_configs(changes, words, tmp_path):
    folder = variant(tmp_path, "resnet-image", **changes)
    with pytest.raises(UserError, match=re.escape(words)):
        read_source(folder)


@pytest.mark.parametrize("shape", [(2, 19, 19, 1), (19, 19, 3), (2, 3, 19, 19)])
def test_images_of_another_shape_are_refused(shape):
    model, _ = load("resnet-image")
    with pytest.raises(UserError, match=r"expected \[batch, height, width, 3\]"):
        model.apply_fn(model.params, {"pixel_values": jnp.zeros(shape)}, key=None, train=False)
