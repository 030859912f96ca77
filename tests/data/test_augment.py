"""Augmentation: what is drawn, how often, within which bounds, and from which seeds."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import train_order
from jaxtune.data.images import augment
from jaxtune.data.images.decode import Source
from jaxtune.data.images.image_examples import ImageExamples
from jaxtune.data.images.image_processor import ImageProcessor
from jaxtune.data.images.rand_augment import OPERATIONS, SIGNED, rand_augment
from jaxtune.data.text.token_dropout import token_dropout
from jaxtune.run.config import load_config
from jaxtune.settings.data import AugmentationSettings

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "images" / "rand_augment.npz")
PROCESSOR = ImageProcessor("ViTImageProcessor", {"height": 32, "width": 24}, resample=2)
EVERYTHING = AugmentationSettings("resized", True, 2, 9, 0.4, 1.0)


def rng(i=0):
    return augment.generator((0, 0), i, augment.OF_IMAGE)


def image(seed=0, height=40, width=30):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


# --- One image ------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(60, 60), (80, 45), (33, 50)])
def test_resized_crops_are_uniform_in_area_and_in_the_logarithm_of_the_ratio(width, height):
    draws = 4000
    boxes = np.array([augment.resized_crop_box(width, height, rng(i)) for i in range(draws)])
    left, top, right, bottom = boxes.T
    assert left.min() == 0 == top.min()
    assert right.max() == width
    assert bottom.max() == height
    w, h = right - left, bottom - top
    area, ratio = w * h / (width * height), w / h
    # Sides are rounded to pixels; the largest part is limited by the ratio too.
    assert 0.07 < area.min() < 0.11
    largest = min(1.0, width / height * 4 / 3, height / width * 4 / 3)
    assert 0.95 * largest < area.max() <= 1.02 * largest
    assert ((w + 0.5) / (h - 0.5) >= 3 / 4).all()
    assert ((w - 0.5) / (h + 0.5) <= 4 / 3).all()
    assert ratio.min() < 0.79
    assert ratio.max() > 1.27
    # The same law, drawn independently: what fits of areas and ratios.
    other = np.random.default_rng(1)
    areas = other.uniform(0.08, 1, 20 * draws) * width * height
    ratios = np.exp(other.uniform(math.log(3 / 4), math.log(4 / 3), 20 * draws))
    ws, hs = np.round(np.sqrt(areas * ratios)), np.round(np.sqrt(areas / ratios))
    fits = (ws <= width) & (hs <= height)
    assert stats.ks_2samp(area, (ws * hs)[fits] / (width * height)).pvalue > 1e-3
    assert stats.ks_2samp(ratio, (ws / hs)[fits]).pvalue > 1e-3
    # Where there is room, every place is as likely.
    room = width - w > 10
    place = (left[room] + np.random.default_rng(2).random(room.sum())) / (width - w + 1)[room]
    assert stats.kstest(place, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [(1000, 20, (486, 0, 513, 20)), (20, 1000, (0, 486, 20, 513)), (1, 1, (0, 0, 1, 1))],
)
def test_an_image_that_no_ratio_fits_gives_its_middle(width, height, box):
    assert augment.resized_crop_box(width, height, rng()) == box


def test_a_resized_crop_is_the_box_at_the_size_of_the_model():
    box = augment.resized_crop_box(30, 40, rng(3))
    expected = image().crop(box).resize((24, 32), Image.Resampling.BICUBIC)
    found = augment.random_resized_crop(image(), (32, 24), 3, rng(3))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_a_padded_crop_shifts_by_up_to_an_eighth_and_fills_with_black():
    picture = image(height=32, width=24)
    padded = np.pad(np.asarray(picture), ((4, 4), (3, 3), (0, 0)))
    windows = {padded[y : y + 32, x : x + 24].tobytes(): (y, x) for y in range(9) for x in range(7)}
    found = np.zeros((9, 7), int)
    for i in range(3000):
        found[windows[np.asarray(augment.random_pad_crop(picture, rng(i))).tobytes()]] += 1
    assert stats.chisquare(found.ravel()).pvalue > 1e-3


def test_every_other_image_is_mirrored():
    settings = AugmentationSettings(flip=True)
    plain = np.asarray(PROCESSOR.resize(image()))
    mirrored = 0
    for i in range(1000):
        found = np.asarray(augment.augment(image(), PROCESSOR, settings, rng(i)))
        is_mirrored = np.array_equal(found, plain[:, ::-1])
        assert is_mirrored or np.array_equal(found, plain)
        mirrored += is_mirrored
    assert stats.binomtest(mirrored, 1000).pvalue > 1e-3


def test_without_augmentation_an_image_is_as_in_evaluation():
    found = augment.augment(image(), PROCESSOR, AugmentationSettings(), rng())
    np.testing.assert_array_equal(np.asarray(found), np.asarray(PROCESSOR.resize(image())))


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
@pytest.mark.parametrize("size", [(40, 30), (1, 1), (5, 300)])
def test_what_comes_out_has_the_size_of_the_model(crop, size):
    settings = AugmentationSettings(crop, True, 3, 30)
    for i in range(30):
        found = augment.augment(image(0, *size), PROCESSOR, settings, rng(i))
        assert (found.mode, found.size) == ("RGB", (24, 32))


# --- RandAugment ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_torchvision(name):
    saved = [key.split("/") for key in GOLDEN if key.startswith(f"{name}/")]
    assert {int(sign) for _, _, sign in saved} == ({1, -1} if name in SIGNED else {1})
    for _, magnitude, sign in saved:
        picture = Image.fromarray(GOLDEN["image"])
        found = OPERATIONS[name](picture, int(sign) * int(magnitude) / 30)
        expected = GOLDEN[f"{name}/{magnitude}/{sign}"]
        if name in ("Brightness", "Color", "Contrast", "Sharpness"):
            # torchvision's factor is float32 and cut to a whole value: one may differ by 1
            np.testing.assert_allclose(np.asarray(found, int), expected.astype(int), atol=1)
        else:
            np.testing.assert_array_equal(np.asarray(found), expected)


def test_operations_and_directions_are_as_likely_as_each_other(monkeypatch):
    counts = {}

    def note(name):
        def operation(picture, strength):
            counts[name, strength] = counts.get((name, strength), 0) + 1
            return picture

        return operation

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, note(name))
    for i in range(2000):
        rand_augment(image(), 3, 12, rng(i))
    each = [sum(n for (name, _), n in counts.items() if name == wanted) for wanted in OPERATIONS]
    assert sum(each) == 6000
    assert stats.chisquare(each).pvalue > 1e-3
    for name in OPERATIONS:
        strengths = {s: n for (found, s), n in counts.items() if found == name}
        assert set(strengths) == ({0.4, -0.4} if name in SIGNED else {0.4})
        if name in SIGNED:
            assert stats.chisquare(list(strengths.values())).pvalue > 1e-4


def test_no_operations_leave_an_image_as_it_is():
    assert rand_augment(image(), 0, 30, rng()) == image()


# --- A batch --------------------------------------------------------------------------------


def batch(count=6, size=8):
    pixels = np.random.default_rng(0).normal(size=(size, 10, 12, 3)).astype(np.float32)
    pixels[count:] = 0
    labels = np.zeros(size, np.int32)
    labels[:count] = np.arange(10, 10 + count)
    return pixels, labels


@pytest.mark.parametrize("seed", range(5))
def test_mixup(seed):
    pixels, labels = batch()
    found = augment.mix(pixels, labels, 6, AugmentationSettings(mixup_alpha=0.4), rng(seed))
    assert {name: x.dtype for name, x in found.items()} == {
        "pixel_values": np.float32, "mixed_labels": np.int32, "mix_share": np.float32,
    }  # fmt: skip
    assert sorted(found["mixed_labels"][:6]) == list(range(10, 16))
    share = float(found["mix_share"][0])
    assert (found["mix_share"] == found["mix_share"][0]).all()
    partners = found["mixed_labels"][:6] - 10
    expected = (1 - share) * pixels[:6] + share * pixels[partners]
    np.testing.assert_allclose(found["pixel_values"][:6], expected, atol=1e-6)
    assert not found["pixel_values"][6:].any()
    assert found["mixed_labels"][6:].tolist() == [0, 0]
    np.testing.assert_array_equal(batch()[0], pixels)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_share_of_mixup_is_beta(alpha):
    pixels, _ = batch()
    partners = np.arange(8)[::-1]
    shares = [augment.mixup(pixels, partners, alpha, rng(i))[1] for i in range(1000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_cutmix_pastes_a_box_and_counts_its_area():
    shape = (2, 20, 30, 3)
    pixels = np.broadcast_to(np.arange(2, dtype=np.float32)[:, None, None, None], shape)
    shares, areas = [], []
    for i in range(1500):
        mixed, share = augment.cutmix(pixels, np.array([1, 0]), 1.0, rng(i))
        pasted = mixed[0, ..., 0] == 1
        np.testing.assert_array_equal(mixed[1], 1 - mixed[0])
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted.sum() == len(rows) * len(columns)  # one full box
        if len(rows):
            assert np.ptp(rows) == len(rows) - 1
            assert np.ptp(columns) == len(columns) - 1
        assert share == pytest.approx(pasted.mean())
        shares.append(share)
    # The same law in the plane, where nothing is rounded to pixels.
    other = np.random.default_rng(0)
    half = np.sqrt(other.beta(1, 1, 20000)) / 2
    sides = [
        np.minimum(1, centre + half) - np.maximum(0, centre - half)
        for centre in other.random((2, 20000))
    ]
    areas = sides[0] * sides[1]
    assert np.mean(shares) == pytest.approx(areas.mean(), abs=0.02)
    assert np.std(shares) == pytest.approx(areas.std(), abs=0.02)


def test_with_both_each_batch_draws_one():
    pixels, labels = batch()
    settings = AugmentationSettings(mixup_alpha=1.0, cutmix_alpha=1.0)
    cut = 0
    for i in range(400):
        mixed = augment.mix(pixels, labels, 6, settings, rng(i))["pixel_values"]
        cut += np.isin(mixed, pixels).all()
    assert stats.binomtest(int(cut), 400).pvalue > 1e-3


def test_a_batch_of_one_image_is_mixed_with_itself():
    pixels, labels = batch(count=1)
    found = augment.mix(pixels, labels, 1, AugmentationSettings(mixup_alpha=1.0), rng())
    np.testing.assert_allclose(found["pixel_values"], pixels, atol=1e-6)
    assert found["mixed_labels"].tolist() == labels.tolist()


# --- Seeds ----------------------------------------------------------------------------------


@pytest.fixture
def examples(tmp_path):
    sources = []
    for i in range(10):
        image(i).save(tmp_path / f"{i}.png")
        sources.append(Source(str(tmp_path / f"{i}.png"), ""))
    return ImageExamples(sources, PROCESSOR, np.arange(10, dtype=np.int32), EVERYTHING)


def batches(examples, seed, epoch):
    order = train_order(examples.lengths, (8,), 4, seed, epoch)
    return [examples.collate(index, 4, (seed, epoch)) for index in order]


def test_batches_follow_from_seed_and_epoch(examples):
    first = batches(examples, 1, 2)
    for one, other in zip(first, batches(examples, 1, 2), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert {tuple((n, x.shape, x.dtype) for n, x in sorted(b.items())) for b in first} == {
        (
            ("example_ids", (4,), np.dtype(np.int32)),
            ("labels", (4,), np.dtype(np.int32)),
            ("mix_share", (4,), np.dtype(np.float32)),
            ("mixed_labels", (4,), np.dtype(np.int32)),
            ("pixel_values", (4, 32, 24, 3), np.dtype(np.float32)),
            ("weight", (4,), np.dtype(np.float32)),
        )
    }
    assert len({float(b["mix_share"][0]) for b in first}) == 3


def test_a_batch_of_filling_alone_has_the_shapes_of_any_other(examples):
    index = train_order(examples.lengths, (8,), 4, 0, 0)[0]
    full = examples.collate(index, 4, (0, 0))
    empty = examples.collate(index._replace(indices=index.indices[:0]), 4, (0, 0))
    assert {n: (x.shape, x.dtype) for n, x in empty.items()} == {
        n: (x.shape, x.dtype) for n, x in full.items()
    }
    assert not empty["weight"].any()
    assert not empty["pixel_values"].any()


def test_an_image_is_changed_in_the_same_way_whatever_its_batch(examples):
    plain = examples._replace(augmentation=dataclasses.replace(EVERYTHING, mixup_alpha=0.0))
    plain = plain._replace(augmentation=dataclasses.replace(plain.augmentation, cutmix_alpha=0.0))
    seen = {}
    for order in (np.array([1, 4, 7]), np.array([7, 2, 9])):
        index = train_order(plain.lengths, (8,), 4, 0, 0)[0]._replace(indices=order)
        for row, i in enumerate(order):
            pixels = plain.collate(index, 4, (0, 0))["pixel_values"][row]
            np.testing.assert_array_equal(pixels, seen.setdefault(int(i), pixels))
    (again,) = plain.collate(index._replace(indices=order[:1]), 1, (0, 1))["pixel_values"]
    assert not np.array_equal(again, seen[7])


def test_streams_differ():
    drawn = {
        augment.generator(draw, i, stream).random()
        for draw in [(0, 0), (0, 1), (1, 0)]
        for i in range(3)
        for stream in (augment.OF_IMAGE, augment.OF_BATCH)
    }
    assert len(drawn) == 18


# --- Tokens ---------------------------------------------------------------------------------


def test_token_dropout_hides_its_share_of_what_is_not_special():
    tokens = np.concatenate([[101], np.arange(1000, 5000), [102, 102]]).astype(np.int32)
    before = tokens.copy()
    fields = {"input_ids": tokens, "token_type_ids": np.zeros_like(tokens)}
    transform = token_dropout(0.3, 103, (0, 101, 102, 103))
    counts = np.zeros(len(tokens), int)
    for i in range(50):
        found = transform(fields, np.random.default_rng(i), True)
        assert found["input_ids"].dtype == np.int32
        assert found["token_type_ids"] is fields["token_type_ids"]
        hidden = found["input_ids"] == 103
        np.testing.assert_array_equal(found["input_ids"][~hidden], tokens[~hidden])
        counts += hidden
    assert counts[[0, -2, -1]].tolist() == [0, 0, 0]
    assert stats.binomtest(int(counts.sum()), 50 * 4000, 0.3).pvalue > 1e-3
    assert stats.chisquare(counts[1:-2]).pvalue > 1e-3
    np.testing.assert_array_equal(tokens, before)


def test_token_dropout_leaves_evaluation_alone():
    fields = {"input_ids": np.arange(100)}
    transform = token_dropout(0.9, 103, ())
    assert transform(fields, np.random.default_rng(0), False) is fields
    assert (transform(fields, np.random.default_rng(0), True)["input_ids"] == 103).mean() > 0.8


# --- Settings -------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.py").write_text(
        "from jaxtune.run.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.model.path, config.data.path = 'm', 'd'\n"
        "    config.data.augmentation.mixup_alpha = 0.2\n"
        "    return config\n"
    )
    return str(tmp_path / "config.py")


def test_overrides_reach_the_nested_section(config):
    overrides = {
        "data.augmentation.crop": "pad",
        "data.augmentation.flip": "true",
        "data.augmentation.rand_augment_num_ops": "2",
        "data.augmentation.cutmix_alpha": "1",
        "data.token_dropout": "0.1",
        "data.image_column": "img",
    }
    data = load_config(config, overrides).data
    assert data.augmentation == AugmentationSettings("pad", True, 2, 9, 0.2, 1.0)
    assert (data.tokens.token_dropout, data.columns.image_column) == (0.1, "img")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("augmentation.crop", "random", "expected one of none, pad, resized"),
        ("augmentation.flip", "perhaps", "expected true or false"),
        ("augmentation.rand_augment_num_ops", "-1", "expected at least 0"),
        ("augmentation.rand_augment_magnitude", "31", "expected at least 0 and at most 30"),
        ("augmentation.mixup_alpha", "-0.1", "expected at least 0"),
        ("augmentation.cutmix_alpha", "-1", "expected at least 0"),
        ("augmentation.mixup", "1", "Nearest: mixup_alpha"),
        ("augmentation", "1", "is a section"),
        ("token_dropout", "1.0", "expected at least 0 and below 1"),
        ("token_dropout", "-0.1", "expected at least 0 and below 1"),
    ],
)
def test_settings_out_of_range(config, field, value, message):
    with pytest.raises(UserError) as caught:
        load_config(config, {f"data.{field}": value})
    assert f"config.data.{field.rsplit('.', 1)[0]}" in str(caught.value)
    assert message in str(caught.value)
