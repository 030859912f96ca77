"""RandAugment by Pillow, with the operations and strengths of torchvision's.

Source: Cubuk et al. 2020, RandAugment: Practical Automated Data Augmentation with a Reduced Search
Space; torchvision.transforms.RandAugment, whose 31 strengths these are.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 30

Operation = Callable[[Image.Image, float], Image.Image]
"""(image, strength from -1 to 1) -> image of the same size."""


def rand_augment(
    image: Image.Image, num_ops: int, magnitude: int, rng: np.random.Generator
) -> Image.Image:
    """Applies operations drawn from all with equal chances, some of them in a random direction.

    Args:
      image: RGB.
      num_ops: how many, one after the other.
      magnitude: strength of all, 0 to 30.
      rng: draws the operations and their directions.
    """
    names = list(OPERATIONS)
    for _ in range(num_ops):
        name = names[rng.integers(len(names))]
        sign = -1.0 if name in SIGNED and rng.integers(2) else 1.0
        image = OPERATIONS[name](image, sign * magnitude / MAX_MAGNITUDE)
    return image


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    """Each pixel (x, y) is that at (ax + by + c, dx + ey + f); black beyond the edge."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _shear_x(image: Image.Image, m: float) -> Image.Image:
    return _affine(image, 1, 0.3 * m, 0, 0, 1, 0)


def _shear_y(image: Image.Image, m: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0.3 * m, 1, 0)


def _translate_x(image: Image.Image, m: float) -> Image.Image:
    return _affine(image, 1, 0, -int(150 / 331 * image.width * m), 0, 1, 0)


def _translate_y(image: Image.Image, m: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, -int(150 / 331 * image.height * m))


def _rotate(image: Image.Image, m: float) -> Image.Image:
    return image.rotate(30 * m, Image.Resampling.NEAREST)


def _posterize(image: Image.Image, m: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * m))


def _solarize(image: Image.Image, m: float) -> Image.Image:
    # a whole threshold must not become the next one by rounding
    return ImageOps.solarize(image, math.ceil(round(255 * (1 - m), 6)))


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda image, m: image,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + 0.9 * m),
    "Color": lambda image, m: ImageEnhance.Color(image).enhance(1 + 0.9 * m),
    "Contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + 0.9 * m),
    "Sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * m),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": lambda image, m: ImageOps.autocontrast(image),
    "Equalize": lambda image, m: ImageOps.equalize(image),
}

SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color")
SIGNED = (*SIGNED, "Contrast", "Sharpness")
"""The operations that have two directions."""
