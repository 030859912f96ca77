"""Images: how folders and tables of them are read, what is refused, and what a batch holds."""

import io
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from PIL import Image

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.images import decode as decode_module
from jaxtune.data.images import images
from jaxtune.data.images.decode import Source, decode
from jaxtune.data.images.image_examples import ImageExamples
from jaxtune.data.images.image_processor import ImageProcessor
from jaxtune.data.sources.rows import Rows, read_data
from jaxtune.settings.data import AugmentationSettings, DataSettings
from jaxtune.settings.dicts import from_dict

PROCESSOR = ImageProcessor("ViTImageProcessor", {"height": 6, "width": 8}, resample=2)


def pixels(seed, height=5, width=7):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(path, seed, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path, **options)
    return path


def read(path, **fields):
    return read_data(from_dict(DataSettings, {"path": str(path), **fields}), images.CLASSES)


def fill(folder, classes, count=4, first=0):
    """Distinct images of each class."""
    for c, name in enumerate(classes):
        for i in range(count):
            write(folder / name / f"{i}.png", first + 100 * c + i)


def as_array(path):
    return np.asarray(decode(Source(str(path), str(path))))


# --- Folders --------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["validation", "val", "dev", "valid", "Val"])
def test_a_folder_for_each_split(tmp_path, word):
    fill(tmp_path / "train", ["dog", "cat"], count=5)
    fill(tmp_path / word, ["cat", "dog"], count=2, first=1000)
    fill(tmp_path / "test", ["cat"], count=3, first=2000)
    fill(tmp_path / "unused", ["bird"])
    data = read(tmp_path, validation_size=0.5, test_size=0.5)
    assert data.class_names == ("cat", "dog")
    assert {split: rows.labels.tolist() for split, rows in data.splits.items()} == {
        "train": [0] * 5 + [1] * 5,
        "validation": [0, 0, 1, 1],
        "test": [0, 0, 0],
    }
    assert [Path(s.name).relative_to(tmp_path) for s in data.splits["validation"].inputs] == [
        Path(word, name, f"{i}.png") for name in ("cat", "dog") for i in range(2)
    ]
    assert data.notes == [f"{tmp_path}: left alone, as no images of the data: unused/ 1"]


def test_without_splits_they_are_held_out(tmp_path):
    fill(tmp_path, ["b", "a", "c"], count=10)
    data = read(tmp_path, validation_size=0.2, test_size=6)
    assert data.class_names == ("a", "b", "c")
    sizes = {split: np.bincount(rows.labels).tolist() for split, rows in data.splits.items()}
    assert sizes["test"] == [2, 2, 2]
    assert sum(sizes["validation"]) == 5
    names = [source.name for rows in data.splits.values() for source in rows.inputs]
    assert len(set(names)) == len(names) == 30
    for rows in data.splits.values():
        for source, label in zip(rows.inputs, rows.labels, strict=True):
            assert Path(source.name).parent.name == "abc"[label]


def test_classes_that_are_numbers_stand_in_the_order_of_their_values(tmp_path):
    fill(tmp_path, ["10", "9", "0"], count=3)
    assert read(tmp_path, validation_size=3).class_names == ("0", "9", "10")


def test_which_files_are_images(tmp_path):
    fill(tmp_path / "train", ["a", "b"], count=2)
    write(tmp_path / "train" / "a" / "deep" / "er" / "x.JPEG", 7)
    write(tmp_path / "train" / "a" / ".hidden.png", 8)
    write(tmp_path / "train" / "a" / ".cache" / "x.png", 8)
    (tmp_path / "train" / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    names = [
        Path(s.name).name
        for rows in read(tmp_path, validation_size=2).splits.values()
        for s in rows.inputs
    ]
    assert sorted(names) == ["0.png", "0.png", "1.png", "1.png", "x.JPEG"]


def test_a_name_picks_a_subfolder(tmp_path):
    fill(tmp_path / "small" / "train", ["a", "b"])
    fill(tmp_path / "large" / "train", ["c", "d"])
    assert read(tmp_path, name="large", validation_size=2).class_names == ("c", "d")


def test_a_test_folder_without_classes_has_no_labels(tmp_path):
    fill(tmp_path / "train", ["a", "b"])
    write(tmp_path / "test" / "0.png", 50)
    data = read(tmp_path, validation_size=2)
    assert "test" not in data.splits
    assert any("test has no labels" in note for note in data.notes)


def test_the_same_image_twice_stays_on_one_side(tmp_path):
    fill(tmp_path, ["a", "b"], count=12)
    for i in range(12):
        (tmp_path / "a" / f"copy{i}.png").write_bytes((tmp_path / "a" / f"{i}.png").read_bytes())
    data = read(tmp_path, validation_size=0.3)
    sides = [
        {Path(s.name).read_bytes() for s in data.splits[split].inputs}
        for split in ("train", "validation")
    ]
    assert not sides[0] & sides[1]
    assert not any("also in train" in note for note in data.notes)


def test_an_image_of_train_in_validation_is_said(tmp_path):
    fill(tmp_path / "train", ["a", "b"])
    fill(tmp_path / "val", ["a", "b"], count=2, first=1000)
    (tmp_path / "val" / "a" / "0.png").write_bytes((tmp_path / "train/b/3.png").read_bytes())
    assert "1 of 4 validation images are also in train" in read(tmp_path).notes


def test_the_digest_is_of_all_images(tmp_path):
    fill(tmp_path, ["a", "b"])
    digest = read(tmp_path, validation_size=2).sha256
    assert read(tmp_path, validation_size=2, sha256=digest).sha256 == digest
    write(tmp_path / "b" / "2.png", 99)
    with pytest.raises(UserError, match="has sha256"):
        read(tmp_path, sha256=digest)


def test_a_class_that_train_does_not_have(tmp_path):
    fill(tmp_path / "train", ["cat", "dog"])
    fill(tmp_path / "test", ["cat", "dogs"])
    with pytest.raises(UserError, match=r"test/dogs/0.png: .*'dogs'.*cat, dog.*Nearest: dog\."):
        read(tmp_path)
    data = read(tmp_path, on_unknown_class="wrong", validation_size=0.25)
    assert data.splits["test"].labels.max() == 2
    assert any("dogs" in note and "counts as an error" in note for note in data.notes)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/0.png"], r"train/0\.png: found an image beside the folders"),
        (["train/a/0.png", "train/b/0.png", "train/x.png"], r"train/x\.png: .*beside.*CLASS/x"),
        (["a/0.png", "b/0.png", "x.png"], r"x\.png: found an image beside"),
        (["train/a/0.png"], r"found one folder, a, but expected.*at least two classes"),
        (["a/0.png"], r"found one folder, a,"),
        (["test/a/0.png", "test/b/0.png"], r"found the folder test, but none named train"),
        (
            ["train/a/0.png", "train/b/0.png", "val/a/0.png", "dev/a/0.png"],
            r"several folders for the validation split: dev, val",
        ),
        (["train/a/0.png", "train/b/0.png", "train/c/0.heic"], r"train/c: found no images.*\.png"),
        (["train/a/0.png", "train/b/0.png", "val/a/0.heic"], r"val: found no images"),
        (
            ["train/a/0.png", "train/b/0.png", "val/a/0.png", "val/1.png"],
            r"val/1\.png: found an image beside",
        ),
        (["a/0.heic"], r"found no train file among no data files"),
    ],
)
def test_folders_that_are_refused(tmp_path, files, message):
    for i, file in enumerate(files):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            write(path, i)
        else:
            path.write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        read(tmp_path)


# --- Tables ---------------------------------------------------------------------------------


def test_a_column_of_datasets(tmp_path):
    source = datasets.Dataset.from_dict(
        {
            "img": [Image.fromarray(pixels(i)) for i in range(8)],
            "label": [i % 2 for i in range(8)],
        },
        datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(2, ["z", "y"])}),
    )
    source.to_parquet(tmp_path / "train.parquet")
    data = read(tmp_path, image_column="img", validation_size=2)
    assert data.class_names == ("z", "y")
    rows = data.splits["train"]
    assert len(rows.inputs) == 6
    for image, label in zip(rows.inputs, rows.labels, strict=True):
        number = int(image.place.rsplit(" ", 1)[1]) - 1
        np.testing.assert_array_equal(np.asarray(decode(image)), pixels(number))
        assert label == number % 2


def test_a_column_of_paths_beside_the_images(tmp_path):
    lines = []
    for i in range(6):
        write(tmp_path / "files" / f"{i}.png", i)
        lines.append({"image": f"files/{i}.png", "label": "ab"[i % 2]})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = read(tmp_path, validation_size=2).splits["train"]
    for image, label in zip(rows.inputs, rows.labels, strict=True):
        number = int(Path(image.name).stem)
        np.testing.assert_array_equal(np.asarray(decode(image)), pixels(number))
        assert label == number % 2


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, "found nothing"), (3, "found 3"), (" ", "found ' '"), ({"path": None}, "found {'path")],
)
def test_a_column_that_holds_no_images(tmp_path, value, found):
    write(tmp_path / "0.png", 0)
    lines = [{"image": "0.png", "label": "a"}, {"image": value, "label": "b"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    for part in ("train.jsonl line 2", found, "'image'", "config.data.image_column"):
        assert part in str(caught.value)


def test_a_path_in_a_table_that_does_not_exist(tmp_path):
    write(tmp_path / "0.png", 0)
    (tmp_path / "train.csv").write_text("image,label\n0.png,a\n1.png,b\n")
    with pytest.raises(UserError, match=r"train\.csv line 3: .*1\.png: cannot be read"):
        read(tmp_path)


def test_a_table_without_the_column(tmp_path):
    (tmp_path / "train.csv").write_text("img,label\n0.png,a\n")
    with pytest.raises(UserError, match=r"'image'.*Nearest: img.*config\.data\.image_column"):
        read(tmp_path)


# --- Decoding -------------------------------------------------------------------------------


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = pixels(0)[..., 0]
    Image.fromarray(grey).save(tmp_path / "x.png")
    np.testing.assert_array_equal(as_array(tmp_path / "x.png"), np.stack([grey] * 3, -1))
    Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(
        as_array(tmp_path / "bits.png"), np.stack([(grey > 99) * 255] * 3, -1)
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    deep = np.random.default_rng(0).integers(0, 2**16, (5, 7)).astype(np.uint16)
    deep[0, :3] = 0, 65535, 256
    file = tmp_path / f"x.{suffix}"
    if suffix == "pgm":
        file.write_bytes(b"P5 7 5 65535\n" + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(file)
    expected = np.round(deep / 65535 * 255)
    np.testing.assert_array_equal(as_array(file), np.stack([expected] * 3, -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path, mode):
    values = np.dstack([pixels(0), pixels(1)[..., :1]])
    values[0, :, 3], values[1, :, 3] = 0, 255
    if mode == "LA":
        values = values[..., 2:]
    Image.fromarray(values, mode).save(tmp_path / "x.png")
    found = as_array(tmp_path / "x.png")
    alpha = values[..., -1:] / 255
    expected = np.broadcast_to(values[..., :-1] * alpha + 255 * (1 - alpha), found.shape)
    np.testing.assert_allclose(found, expected, atol=0.51)
    assert (found[0] == 255).all()
    np.testing.assert_array_equal(found[1], expected[1])


def test_palettes_with_and_without_transparency(tmp_path):
    colours = np.array([[10, 20, 30], [200, 100, 0], [0, 0, 0]], np.uint8)
    numbers = np.random.default_rng(0).integers(0, 3, (5, 7)).astype(np.uint8)
    image = Image.fromarray(numbers, "P")
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(as_array(tmp_path / "x.png"), colours[numbers])
    image.save(tmp_path / "clear.png", transparency=2)
    image.save(tmp_path / "clear.gif", transparency=2)
    colours[2] = 255
    np.testing.assert_array_equal(as_array(tmp_path / "clear.png"), colours[numbers])
    np.testing.assert_array_equal(as_array(tmp_path / "clear.gif"), colours[numbers])


def test_cmyk_is_ink_on_white(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:4, :4, 0] = ink[:4, 4:, 3] = ink[4:, :4, 1] = 255  # cyan, black, magenta; the rest is bare
    for name in ("x.tif", "x.jpg"):
        Image.fromarray(ink, "CMYK").save(tmp_path / name, quality=100)
        found = as_array(tmp_path / name).astype(int)
        for place, colour in {
            (1, 1): (0, 255, 255),
            (1, 6): (0, 0, 0),
            (6, 1): (255, 0, 255),
            (6, 6): (255, 255, 255),
        }.items():
            np.testing.assert_allclose(found[place], colour, atol=6)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
def test_an_image_is_turned_as_its_exif_says(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = write(tmp_path / "x.png", 0, exif=exif)
    np.testing.assert_array_equal(as_array(file), upright(pixels(0)))


def test_the_first_frame_is_taken(tmp_path):
    frames = [Image.fromarray(np.full((5, 7), value, np.uint8)) for value in (60, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (as_array(tmp_path / "x.gif") == 60).all()


def jpeg():
    stream = io.BytesIO()
    Image.fromarray(pixels(0, 64, 64)).save(stream, "JPEG")
    return stream.getvalue()


def png():
    stream = io.BytesIO()
    Image.fromarray(pixels(0, 64, 64)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.jpg", lambda: b"", "no format that Pillow knows; 0 bytes"),
        ("x.jpg", lambda: b"<html>not found</html>", "no format that Pillow knows; 22 bytes"),
        ("x.jpg", lambda: jpeg()[:-200], "truncated"),
        ("x.jpg", lambda: jpeg()[:100], ""),
        ("x.png", lambda: png()[:-200], "truncated"),
        ("x.png", lambda: png()[:20], ""),
        ("x.png", lambda: png()[:100] + b"\0" * 50 + png()[150:], ""),
    ],
)
def test_a_broken_image_is_found_while_reading(tmp_path, name, content, reason):
    fill(tmp_path / "train", ["a", "b"])
    (tmp_path / "train" / "b" / name).write_bytes(content())
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    text = str(caught.value)
    for part in (str(tmp_path / "train" / "b" / name), "broken", reason, "Replace or remove it"):
        assert part in text
    assert "0x" not in text


@pytest.mark.parametrize(("mode", "dtype"), [("F", np.float32), ("I", np.int32)])
def test_pixels_without_a_known_white_are_refused(tmp_path, mode, dtype):
    values = np.linspace(-3, 1e6, 35).reshape(5, 7).astype(dtype)
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=r"x\.tif.*nothing says what is white"):
        as_array(tmp_path / "x.tif")


def test_an_image_with_more_pixels_than_may_be(tmp_path):
    fill(tmp_path / "train", ["a", "b"])
    big = write(tmp_path / "train" / "b" / "big.png", 1, compress_level=1)
    Image.new("1", (60, 50)).save(big)
    with pytest.raises(UserError, match=r"60 x 50 pixels, .* 2999 pixels, config\.data\.max_image"):
        read(tmp_path, max_image_pixels=2999, validation_size=2)
    assert read(tmp_path, max_image_pixels=3000, validation_size=2)
    (tmp_path / "train.csv").write_text("image,label\ntrain/b/big.png,a\ntrain/b/0.png,b\n")
    with pytest.raises(UserError, match=r"csv line 2: .*big\.png: found 60 x 50 pixels"):
        read(tmp_path / "train.csv", max_image_pixels=2999)
    with pytest.raises(UserError, match=r"a file of \d+ bytes.*config\.data\.max_image_pixels"):
        read(tmp_path, max_image_pixels=1)


def test_the_pixels_that_are_decoded_at_a_time_are_few(monkeypatch):
    sizes, most = [], []

    def count(image):
        sizes.append(image.width * image.height)
        most.append(sum(sizes))
        time.sleep(0.01)
        sizes.remove(image.width * image.height)
        return image

    monkeypatch.setattr(decode_module.ImageOps, "exif_transpose", count)
    monkeypatch.setattr(decode_module, "WORKERS", 8)
    data = png()
    source = Source("x", "x", data, max_pixels=10_000)  # each has 4,096 of them
    decode_module.check_all([source] * 12)
    assert max(most) == 2 * 4_096


def test_formats_that_start_programs_are_no_images(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UserError, match="no format that"):
        as_array(tmp_path / "x.png")


def test_images_of_other_suffixes_are_read_or_counted(tmp_path):
    fill(tmp_path / "train", ["a", "b"])
    write(tmp_path / "train" / "a" / "x.HEIC", 7, format="JPEG")
    (tmp_path / "train" / "a" / "y.heic").write_bytes(b"\0\0\0\x18ftypheic")
    data = read(tmp_path, validation_size=2)
    assert sum(len(rows.inputs) for rows in data.splits.values()) == 9
    assert any(note.endswith("as no images of the data: .heic 1") for note in data.notes)


# --- Batches --------------------------------------------------------------------------------


def examples(tmp_path, count=5, labels=True, **augmentation):
    found = [str(write(tmp_path / f"{i}.png", i)) for i in range(count)]
    return ImageExamples(
        [Source(name, name) for name in found],
        PROCESSOR,
        np.arange(count, dtype=np.int32) if labels else None,
        AugmentationSettings(**augmentation),
    )


def test_a_batch_of_evaluation(tmp_path):
    found = examples(tmp_path, crop="resized", flip=True, rand_augment_num_ops=2, mixup_alpha=1.0)
    assert found.lengths.tolist() == [1] * 5
    batch = found.collate(BatchIndex(np.array([3, 0, 4]), 8), 6)
    assert set(batch) == {"pixel_values", "weight", "labels", "example_ids"}
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        "pixel_values": ((6, 6, 8, 3), np.float32),
        "weight": ((6,), np.float32),
        "labels": ((6,), np.int32),
        "example_ids": ((6,), np.int32),
    }
    assert batch["weight"].tolist() == [1, 1, 1, 0, 0, 0]
    assert batch["labels"].tolist() == [3, 0, 4, 0, 0, 0]
    assert batch["example_ids"].tolist() == [3, 0, 4, 0, 0, 0]
    for row, i in enumerate([3, 0, 4]):
        resized = Image.fromarray(pixels(i)).resize((8, 6), Image.Resampling.BILINEAR)
        expected = np.asarray(resized) / 127.5 - 1
        np.testing.assert_allclose(batch["pixel_values"][row], expected, atol=1e-6)
    assert not batch["pixel_values"][3:].any()


def test_more_images_than_threads(tmp_path):
    found = examples(tmp_path, count=40)
    batch = found.collate(BatchIndex(np.arange(40)[::-1], 8), 40)
    for row, i in enumerate(range(39, -1, -1)):
        alone = found.collate(BatchIndex(np.array([i]), 8), 1)
        np.testing.assert_array_equal(batch["pixel_values"][row], alone["pixel_values"][0])


def test_without_labels_there_are_none(tmp_path):
    batch = examples(tmp_path, labels=False).collate(BatchIndex(np.arange(2), 8), 2)
    assert set(batch) == {"pixel_values", "weight", "example_ids"}


def test_encode_keeps_the_rows(tmp_path):
    sources = examples(tmp_path).images
    settings = from_dict(DataSettings, {"augmentation": AugmentationSettings(flip=True)})
    processor = ImageProcessor("ViTImageProcessor", {"height": 6, "width": 8}, 2, notes=("hm",))
    found, notes = images.encode(Rows(sources, None), processor, settings)
    assert found.images is sources
    assert found.labels is None
    assert found.augmentation.flip
    assert notes == []  # those of the processor are told once, not for each split
    assert "5 images" in repr(found)


# --- New images -----------------------------------------------------------------------------


def test_new_images_of_a_folder_a_file_a_list_and_a_table(tmp_path):
    for i in range(3):
        write(tmp_path / "new" / f"{i}.png", i)
    write(tmp_path / "new" / "deep" / "3.png", 3)
    (tmp_path / "new" / "notes.txt").write_text("x")
    everything = images.read_new(tmp_path / "new")
    assert everything.labels is None
    names = [os.path.relpath(s.name, tmp_path / "new") for s in everything.inputs]
    assert names == ["0.png", "1.png", "2.png", "deep/3.png"]
    (one,) = images.read_new(tmp_path / "new" / "1.png").inputs
    assert one.name == str(tmp_path / "new" / "1.png")
    (tmp_path / "list.txt").write_text(f"new/2.png\n{tmp_path}/new/0.png\n")
    names = [source.name for source in images.read_new(tmp_path / "list.txt").inputs]
    assert names == [str(tmp_path / "new/2.png"), str(tmp_path / "new/0.png")]
    (tmp_path / "some.csv").write_text("id,photo\n7,new/2.png\n")
    (found,) = images.read_new(tmp_path / "some.csv", ("photo",)).inputs
    assert found.name == str(tmp_path / "new/2.png")
    (tmp_path / "one.csv").write_text("photo\nnew/2.png\n")
    assert images.read_new(tmp_path / "one.csv").inputs[0].name == str(tmp_path / "new/2.png")
    datasets.Dataset.from_dict({"image": [Image.fromarray(pixels(5))], "x": [1]}).to_parquet(
        tmp_path / "some.parquet"
    )
    (found,) = images.read_new(tmp_path / "some.parquet").inputs
    assert found.name == f"{tmp_path}/some.parquet row 1"
    np.testing.assert_array_equal(np.asarray(decode(found)), pixels(5))


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("x.txt", "", (), "is empty: expected the path of one image a line"),
        ("x.txt", "no.png\nno.png\n", (), r"none of 2 images .*line 1: .*no\.png: cannot be read"),
        ("x.csv", "a,b\n1,2\n", (), "has the columns a, b: expected the name of one"),
        ("x.csv", "a,b\n1,2\n", ("c",), r"'c'"),
        ("x.png", "no", (), r"x\.png: found a broken file"),
        ("x.mp4", "no", (), r"found the suffix '\.mp4'"),
    ],
)
def test_new_images_that_are_refused(tmp_path, name, content, columns, message):
    write(tmp_path / "ok.png", 0)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        images.read_new(tmp_path / name, columns)


def test_a_new_image_that_cannot_be_read_has_a_reason(tmp_path):
    write(tmp_path / "ok.png", 0)
    (tmp_path / "broken.png").write_text("no")
    (tmp_path / "x.txt").write_text("ok.png\n\nno.png\nbroken.png\nok.png\n")
    rows = images.read_new(tmp_path / "x.txt")
    assert rows.reasons is not None
    first, blank, absent, broken, last = rows.reasons
    assert first == last == ""
    for reason, part in ((blank, "''"), (absent, "cannot be read"), (broken, "a broken file")):
        assert part in reason
    assert ["x.txt line 2" in blank, "x.txt line 3" in absent, "x.txt line 4" in broken] == [
        True
    ] * 3
    sizes = [decode(source).size for source in rows.inputs]  # a stand-in where there is none
    assert sizes[1:4] == [(1, 1)] * 3
    assert sizes[0] == sizes[4] != (1, 1)
    assert [Path(source.name).name for source in rows.inputs][2:4] == ["no.png", "broken.png"]


def test_a_folder_without_new_images(tmp_path):
    with pytest.raises(UserError, match=r"found no images.*\.png"):
        images.read_new(tmp_path)


# --- Models ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (SimpleNamespace(max_length=512), {}, "model of texts"),
        (SimpleNamespace(num_channels=1), {}, "num_channels 1"),
        (SimpleNamespace(num_channels=3), {"token_dropout": 0.1}, "token_dropout is 0.1"),
        (SimpleNamespace(num_channels=3), {}, None),
    ],
)
def test_which_models_see_images(config, settings, message):
    def check():
        images.IMAGES.check_settings(from_dict(DataSettings, settings), config, Path("folder"))

    if message is None:
        check()
    else:
        with pytest.raises(UserError, match=message):
            check()


def test_the_processor_is_made_for_the_model(tmp_path):
    processor = images.IMAGES.load(tmp_path, SimpleNamespace(image_size=24))
    assert processor.shape == (24, 24)
    assert images.IMAGES.load(tmp_path, SimpleNamespace()).shape == (224, 224)
    images.IMAGES.check(None, SimpleNamespace(), tmp_path)
