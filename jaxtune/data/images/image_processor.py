"""What a model wants its images to be: their size, and the scale of their values."""

import dataclasses
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

FILE = "preprocessor_config.json"

_WARPED = 384  # from this edge on ConvNext's images are stretched to a square, not cropped


@dataclasses.dataclass(frozen=True)
class ImageProcessor:
    """Resizes, crops, rescales and normalises RGB images of 8 bits, in this order.

    Attributes:
      image_processor_type: transformers' class; `ConvNextImageProcessor` has a resizing of its own.
      do_resize: whether images are resized.
      size: `height` and `width` in pixels, or `shortest_edge`, which keeps the aspect ratio. For
        ConvNext below 384: resized to `shortest_edge / crop_pct`, then cropped to a square of it.
      resample: Pillow's number of the filter.
      crop_pct: of ConvNext; None for others.
      do_center_crop: whether the middle is cut out, black where the image is too small.
      crop_size: `height` and `width` of that.
      do_rescale: whether values are multiplied with `rescale_factor`.
      rescale_factor: 1/255 makes 0 to 1 of 0 to 255.
      do_normalize: whether `image_mean` is subtracted, and the rest divided by `image_std`.
      image_mean: of the three channels.
      image_std: of the three channels.
      notes: what a person should know.
    """

    image_processor_type: str
    size: Mapping[str, int]
    resample: int
    do_resize: bool = True
    crop_pct: float | None = None
    do_center_crop: bool = False
    crop_size: Mapping[str, int] | None = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels of every image that comes out."""
        size = self.crop_size if self.do_center_crop and self.crop_size else self.size
        edge = size.get("shortest_edge", 0)
        return size.get("height", edge), size.get("width", edge)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """What a width and height in pixels become before anything is cropped."""
        edge = self.size.get("shortest_edge")
        if not self.do_resize:
            return size
        if edge is None:
            return self.size["width"], self.size["height"]
        if self.crop_pct is None:
            return _keep_ratio(size, edge)
        return (edge, edge) if edge >= _WARPED else _keep_ratio(size, int(edge / self.crop_pct))

    def resize(self, image: Image.Image) -> Image.Image:
        """An image of `shape`: resized and cropped."""
        if self.do_resize:
            image = image.resize(self.resized(image.size), self.resample)
            if self.crop_pct is not None:
                edge = self.size["shortest_edge"]
                image = _center_crop(image, (edge, edge))
        return _center_crop(image, self.shape) if self.do_center_crop else image

    def normalize(self, pixels: UInt8[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
        """`(x * rescale_factor - image_mean) / image_std`."""
        height, width, _ = pixels.shape
        scale, shift = (np.tile(values, width) for values in self._affine)
        # A row of pixels at a time: NumPy is slow where the last axis has three values.
        values = pixels.reshape(height, -1).astype(np.float32)  # [h w*c]
        values *= scale
        values += shift
        return values.reshape(pixels.shape)

    def save_pretrained(self, folder: Path) -> None:
        """Writes a `preprocessor_config.json` that transformers reads."""
        fields = dataclasses.asdict(self)
        del fields["notes"]
        fields = {name: value for name, value in fields.items() if value is not None}
        text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
        (Path(folder) / FILE).write_text(text, encoding="utf-8")

    @cached_property
    def _affine(self) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
        """Factor and summand that do all of `normalize`."""
        factor = self.rescale_factor if self.do_rescale else 1.0
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (0.0, 1.0)
        scale = np.full(3, factor) / np.asarray(std)
        return scale.astype(np.float32), (np.zeros(3) - mean / np.asarray(std)).astype(np.float32)


def _keep_ratio(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """Width and height with `edge` as the shorter of them, rounded as transformers rounds it."""
    short, long = sorted(size)
    longer = int(edge * long / short)
    return (edge, longer) if size[0] == short else (longer, edge)


def _center_crop(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """The middle of `shape`, height and width; black where the image does not reach."""
    left, top = (image.width - shape[1]) // 2, (image.height - shape[0]) // 2
    return image.crop((left, top, left + shape[1], top + shape[0]))
