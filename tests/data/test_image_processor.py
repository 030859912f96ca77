"""Preprocessing against that of transformers, saved by tests/golden/make_images.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.images.decode import Source
from jaxtune.data.images.image_examples import ImageExamples
from jaxtune.data.images.image_processor import ImageProcessor
from jaxtune.data.images.preprocessor_config import load_image_processor

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "images" / "processors.npz")
CASES = [name.split("/")[1] for name in GOLDEN if name.startswith("config/")]
IMAGES = [GOLDEN[f"image/{i}"] for i in range(3)]


def load(folder, image_size=None, **fields):
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return load_image_processor(folder, image_size)


def apply(processor, image):
    resized = processor.resize(Image.fromarray(image))
    assert (resized.height, resized.width) == processor.shape
    return processor.normalize(np.asarray(resized))


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_transformers(tmp_path, case):
    processor = load(tmp_path, **json.loads(str(GOLDEN[f"config/{case}"])))
    stride = int(GOLDEN[f"stride/{case}"])
    for i, image in enumerate(IMAGES):
        found = apply(processor, image)
        assert found.dtype == np.float32
        expected = GOLDEN[f"pixel_values/{case}/{i}"].transpose(1, 2, 0)
        # One factor and one summand, where transformers rounds to float32 three times. A pixel that
        # was resized to another of the 256 values would be off by 0.008 at least.
        np.testing.assert_allclose(found[::stride, ::stride], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_transformers_reads_what_is_saved(tmp_path, case):
    from transformers import AutoImageProcessor

    processor = load(tmp_path, **json.loads(str(GOLDEN[f"config/{case}"])))
    saved = tmp_path / "saved"
    saved.mkdir()
    processor.save_pretrained(saved)
    assert load_image_processor(saved) == processor
    theirs = AutoImageProcessor.from_pretrained(saved)
    (pixels,) = theirs([Image.fromarray(IMAGES[0])])["pixel_values"]
    # With torchvision, which resizes in its own way, it would be another backend.
    atol = 1e-6 if type(theirs).__name__.endswith("Pil") else 0.1
    found = apply(processor, IMAGES[0]).transpose(2, 0, 1)
    np.testing.assert_allclose(found, np.asarray(pixels), rtol=0, atol=atol)


def test_without_a_file_the_model_says_the_size(tmp_path):
    processor = load_image_processor(tmp_path, 24)
    assert processor.shape == (24, 24)
    (note,) = processor.notes
    assert "no preprocessor_config.json" in note
    assert "24 x 24" in note
    resized = Image.fromarray(IMAGES[0]).resize((24, 24), Image.Resampling.BILINEAR)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (np.asarray(resized) / 255 - mean) / std
    np.testing.assert_allclose(apply(processor, IMAGES[0]), expected, atol=1e-6)


def test_without_a_file_and_a_size_images_are_cropped_to_224(tmp_path):
    processor = load_image_processor(tmp_path)
    assert processor.shape == (224, 224)
    assert "224 x 224" in processor.notes[0]
    image = Image.new("RGB", (512, 256))
    image.paste((255, 255, 255), (0, 0, 145, 256))  # one column is left after 144 are cut off
    white = np.asarray(processor.resize(image)) > 128
    assert white[:, 0].all()
    assert not white[:, 1:].any()
    processor.save_pretrained(tmp_path)
    saved = load_image_processor(tmp_path)
    assert saved.notes == ()
    assert saved.crop_pct == 0.875
    assert saved.image_mean == processor.image_mean


def test_a_lone_number_is_a_square_or_the_shorter_edge(tmp_path):
    assert load(tmp_path, size=18).size == {"height": 18, "width": 18}
    convnext = load(tmp_path, size=18, crop_pct=0.9)
    assert convnext.image_processor_type == "ConvNextImageProcessor"
    assert convnext.size == {"shortest_edge": 18}
    assert convnext.shape == (18, 18)


def test_nulls_are_as_if_absent(tmp_path):
    processor = load(tmp_path, size=18, crop_size=None, do_center_crop=None, image_mean=None)
    assert processor == load(tmp_path, size=18)


def test_values_are_scaled_as_the_flags_say():
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    size = {"height": 16, "width": 16}
    plain = ImageProcessor("ViTImageProcessor", size, 2, do_rescale=False, do_normalize=False)
    np.testing.assert_array_equal(plain.normalize(pixels), pixels)
    shifted = ImageProcessor("ViTImageProcessor", size, 2, do_rescale=False, image_mean=(1, 2, 3))
    np.testing.assert_array_equal(shifted.normalize(pixels), (pixels - [1.0, 2, 3]) / 0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_processor_type": "BeitImageProcessor"}, "'BeitImageProcessor', expected one of"),
        ({"image_processor_type": "vit"}, "image_processor_type is 'vit'"),
        ({"size": 0}, "size is 0, expected pixels"),
        ({"size": True}, "size is True"),
        ({"size": [16, 16]}, "size is"),
        ({"size": {"height": 16}}, "size is"),
        ({"size": {"shortest_edge": 16, "longest_edge": 30}}, "size is"),
        ({"size": {"shortest_edge": 16}}, "expected height and width, or do_center_crop"),
        ({"size": {"height": 9, "width": 9}, "crop_pct": 0.9}, "expected shortest_edge"),
        ({"do_resize": False}, "do_resize is False, expected true"),
        ({"do_resize": "no"}, "do_resize is 'no', expected true or false"),
        ({"do_center_crop": True}, "crop_size is None, expected height and width"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 9}}, "crop_size is"),
        ({"resample": 9}, "resample is 9"),
        ({"resample": "bilinear"}, "resample is 'bilinear'"),
        ({"rescale_factor": 0}, "rescale_factor is 0, expected a number from 1e-09"),
        ({"size": 9, "crop_pct": "all"}, "crop_pct is 'all'"),
        ({"size": 9, "crop_pct": 10}, "crop_pct is 10, expected a number from 0.1 to 1"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is"),
        ({"image_mean": "imagenet"}, "image_mean is"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std is"),
    ],
)
def test_fields_that_are_refused(tmp_path, fields, message):
    with pytest.raises(UserError) as caught:
        load(tmp_path, **fields)
    assert message in str(caught.value)
    assert str(tmp_path / "preprocessor_config.json") in str(caught.value)


def test_a_size_that_the_model_cannot_take(tmp_path):
    assert load(tmp_path, 16, size=16).shape == (16, 16)
    with pytest.raises(UserError, match=r"images of 224 x 224.*image_size 16.*Correct size"):
        load(tmp_path, 16)
    with pytest.raises(UserError, match="16 x 20"):
        load(tmp_path, 16, size={"height": 16, "width": 20})


def test_a_file_that_is_no_json(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config\.json is not valid JSON"):
        load_image_processor(tmp_path)


def test_a_narrow_image_is_not_blown_up(tmp_path):
    """Its longer side grows as its shorter one does."""
    file = tmp_path / "a.png"
    Image.new("RGB", (2, 50)).save(file)
    processor = load(tmp_path, size={"shortest_edge": 64}, do_center_crop=True, crop_size=64)
    assert processor.resized((2, 50)) == (64, 1600)
    fits, not_quite = (
        ImageExamples([Source(str(file), "list line 3", None, limit)], processor, None)
        for limit in (64 * 1600, 64 * 1600 - 1)
    )
    one = BatchIndex(np.arange(1), 1)
    assert fits.collate(one, 1)["pixel_values"].shape == (1, 64, 64, 3)
    with pytest.raises(UserError, match=r"^list line 3: .* 2 x 50 .* 64 x 1600, .*_image_pixels"):
        not_quite.collate(one, 1)
