"""The `preprocessor_config.json` beside a model's weights, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.images.image_processor import FILE, ImageProcessor
from jaxtune.io.json_files import read_json_object

MAX_EDGE = 4096
"""Pixels of an image's side as a model takes it; more would fill the memory with one batch."""

_RANGES = {"rescale_factor": (1e-9, 1e9), "crop_pct": (0.1, 1.0)}
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_BILINEAR, _BICUBIC = int(Image.Resampling.BILINEAR), int(Image.Resampling.BICUBIC)
_TYPES: Mapping[str, Mapping[str, Any]] = {
    "ViTImageProcessor": {"size": {"height": 224, "width": 224}, "resample": _BILINEAR},
    "DeiTImageProcessor": {
        "size": {"height": 256, "width": 256},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    },
    "BitImageProcessor": {  # DINOv2's
        "size": {"shortest_edge": 224},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    "ConvNextImageProcessor": {
        "size": {"shortest_edge": 384},
        "resample": _BICUBIC,
        "crop_pct": 224 / 256,
    },
}
"""What transformers takes where a file of each type leaves a field out."""


def load_image_processor(folder: Path, image_size: int | None = None) -> ImageProcessor:
    """What the folder's `preprocessor_config.json` says.

    Without that file, images have the mean and the deviation of ImageNet. They are stretched to
    `image_size`; for a model of any size, the middle 224 x 224 are cut out of images whose shorter
    edge is 256.

    Args:
      folder: of the model.
      image_size: in pixels, of a model that takes no other; None takes any.

    Raises:
      UserError: a field that is malformed, a type that is not known, images that would not all be
        of one size, or not of `image_size`.
    """
    file = folder / FILE
    if not file.is_file():
        name, edge = "ConvNextImageProcessor", 224
        size = {"shortest_edge": edge}
        if image_size is not None:
            name, edge = "ViTImageProcessor", image_size
            size = {"height": edge, "width": edge}
        note = f"{folder} has no {FILE}: images are made {edge} x {edge}, normalised as ImageNet's"
        return _make(name, {"size": size, **_IMAGENET}, str(file), (note,))
    fields = read_json_object(file)
    name = _type_name(fields, str(file))
    processor = _make(name, fields, str(file))
    height, width = processor.shape
    if image_size is not None and (height, width) != (image_size, image_size):
        raise UserError(
            f"{file} makes images of {height} x {width} pixels, but config.json has image_size"
            f" {image_size}: expected the same. Correct size (or crop_size) in {FILE}."
        )
    return processor


def _type_name(fields: Mapping[str, Any], file: str) -> str:
    """The type as transformers calls it today."""
    given = fields.get("image_processor_type", fields.get("feature_extractor_type"))
    if given is None:
        return "ConvNextImageProcessor" if "crop_pct" in fields else "ViTImageProcessor"
    name = str(given).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    if name not in _TYPES:
        raise UserError(
            f"{file}: image_processor_type is {repr(given)[:80]}, expected one of"
            f" {', '.join(_TYPES)}.{nearest(name, _TYPES)} A ViTImageProcessor with all fields"
            " given does the same as most others."
        )
    return name


def _make(
    name: str, fields: Mapping[str, Any], file: str, notes: tuple[str, ...] = ()
) -> ImageProcessor:
    """A processor from the fields of a file; absent ones and nulls have the type's defaults."""
    given = {field: value for field, value in fields.items() if value is not None}
    given = dict(_TYPES[name]) | given
    is_convnext = name == "ConvNextImageProcessor"
    found: dict[str, Any] = {"image_processor_type": name, "notes": notes}
    of_number = "shortest_edge" if "shortest_edge" in _TYPES[name]["size"] else "square"
    found["size"] = _size(given["size"], of_number, file)
    if "crop_size" in given:
        found["crop_size"] = _size(given["crop_size"], "square", file, "crop_size")
    for flag in ("do_resize", "do_rescale", "do_normalize", "do_center_crop"):
        if flag in given:
            _check(isinstance(given[flag], bool), file, flag, given[flag], "true or false")
            found[flag] = given[flag]
    filters = [int(number) for number in Image.Resampling]
    _check(given["resample"] in filters, file, "resample", given["resample"], f"one of {filters}")
    found["resample"] = int(given["resample"])
    for field in ("rescale_factor", *(("crop_pct",) if is_convnext else ())):
        if field in given:
            least, most = _RANGES[field]
            good = _is_number(given[field]) and least <= given[field] <= most
            _check(good, file, field, given[field], f"a number from {least:g} to {most:g}")
            found[field] = float(given[field])
    for field in ("image_mean", "image_std"):
        if field in given:
            found[field] = _channels(given[field], file, field)
    processor = ImageProcessor(**found)
    _check_shape(processor, file)
    return processor


def _size(value: Any, of_number: str, file: str, field: str = "size") -> dict[str, int]:
    """A size as a dict; a lone number is a square or the shorter edge."""
    if _is_pixels(value):
        keys = ("shortest_edge",) if of_number == "shortest_edge" else ("height", "width")
        return dict.fromkeys(keys, value)
    good = (
        isinstance(value, dict)
        and (set(value) == {"height", "width"} or set(value) == {"shortest_edge"})
        and all(map(_is_pixels, value.values()))
    )
    _check(
        good,
        file,
        field,
        value,
        f"pixels up to {MAX_EDGE}, as height and width or as shortest_edge",
    )
    return dict(value)


def _channels(value: Any, file: str, field: str) -> tuple[float, ...]:
    """Three numbers; a lone one is that of all channels."""
    numbers = [value] * 3 if _is_number(value) else value
    good = isinstance(numbers, list | tuple) and len(numbers) == 3 and all(map(_is_number, numbers))
    good = good and (field == "image_mean" or min(numbers) > 0)
    _check(good, file, field, value, "three numbers, deviations above 0")
    return tuple(map(float, numbers))


def _check_shape(processor: ImageProcessor, file: str) -> None:
    """Refuses what would leave images of several sizes, which fit into no batch."""
    size, edge = processor.size, processor.size.get("shortest_edge")
    if processor.do_center_crop:
        good = processor.crop_size is not None and "height" in processor.crop_size
        _check(good, file, "crop_size", processor.crop_size, "height and width with do_center_crop")
    elif not processor.do_resize:
        _check(False, file, "do_resize", False, "true, or do_center_crop, for images of one size")
    elif processor.crop_pct is None:
        _check(edge is None, file, "size", size, "height and width, or do_center_crop")
    if processor.crop_pct is not None and processor.do_resize:
        _check(edge is not None, file, "size", size, "shortest_edge, as ConvNext has it")


def _check(good: bool, file: str, field: str, value: Any, expected: str) -> None:
    if not good:
        raise UserError(f"{file}: {field} is {repr(value)[:80]}, expected {expected}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _is_pixels(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_EDGE
