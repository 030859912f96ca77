"""Random changes to the images of training; each is a function of a generator alone."""

import math

import numpy as np
from jaxtyping import Float32, Int
from PIL import Image, ImageOps

from jaxtune.data.images.image_processor import ImageProcessor
from jaxtune.data.images.rand_augment import rand_augment
from jaxtune.data.text.examples import Draw, Fields
from jaxtune.settings.data import AugmentationSettings

OF_IMAGE, OF_BATCH = 1, 2
"""Streams of random numbers that are independent of each other."""

_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
_TRIES = 10


def generator(draw: Draw, i: int, stream: int) -> np.random.Generator:
    """Random numbers that follow from the seed and the epoch (`draw`), an index and a stream."""
    sequence = np.random.SeedSequence([*draw, i], spawn_key=(stream,))
    return np.random.Generator(np.random.Philox(sequence))


def augment(
    image: Image.Image,
    processor: ImageProcessor,
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> Image.Image:
    """Crops, mirrors and changes one image, as the settings have it.

    Args:
      image: RGB, of any size.
      processor: says the size that comes out, and resizes.
      settings: which changes.
      rng: of this image in this epoch.
    """
    if settings.crop == "resized":
        image = random_resized_crop(image, processor.shape, processor.resample, rng)
    else:
        image = processor.resize(image)
        if settings.crop == "pad":
            image = random_pad_crop(image, rng)
    if settings.flip and rng.integers(2):
        image = ImageOps.mirror(image)
    return rand_augment(image, settings.rand_augment_num_ops, settings.rand_augment_magnitude, rng)


def random_resized_crop(
    image: Image.Image, shape: tuple[int, int], resample: int, rng: np.random.Generator
) -> Image.Image:
    """A random part, resized.

    The part has 8 % to 100 % of the area and a width of 3/4 to 4/3 of its height, the latter
    uniform in the logarithm; after ten draws that do not fit into the image, its middle.

    Args:
      image: of any size.
      shape: height and width of the result.
      resample: Pillow's number of the filter.
      rng: draws area, aspect ratio and place.

    Source: Szegedy et al. 2015, Going Deeper with Convolutions, section 6; the bounds are those of
    torchvision.transforms.RandomResizedCrop.
    """
    box = resized_crop_box(image.width, image.height, rng)
    return image.crop(box).resize((shape[1], shape[0]), resample)


def resized_crop_box(
    width: int, height: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels of what `random_resized_crop` takes."""
    for _ in range(_TRIES):
        area = width * height * rng.uniform(_AREA[0], _AREA[1])
        ratio = math.exp(rng.uniform(_LOG_RATIO[0], _LOG_RATIO[1]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * _RATIO[1])))
    h = min(height, max(1, round(width / _RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def random_pad_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image shifted by up to an eighth of each side, black beyond its edge.

    Source: He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, which shifts
    32 pixels by up to 4.
    """
    left, top = (
        int(rng.integers(-reach, reach + 1))
        for reach in (max(1, image.width // 8), max(1, image.height // 8))
    )
    return image.crop((left, top, left + image.width, top + image.height))


def mixes(settings: AugmentationSettings) -> bool:
    """Whether the images of a batch are mixed with each other."""
    return settings.mixup_alpha > 0 or settings.cutmix_alpha > 0


def mix(
    pixels: Float32[np.ndarray, "b h w c"],
    labels: Int[np.ndarray, " b"],
    count: int,
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> Fields:
    """Mixes each image of a batch with another, by mixup or cutmix.

    Args:
      pixels: normalised.
      labels: classes.
      count: the first rows, which hold images; the others fill the batch and stay as they are.
      settings: with the one or the other, or both, of which each batch draws one.
      rng: of this batch.

    Returns:
      `pixel_values`; `mixed_labels` int32 [b], of the other image; `mix_share` float32 [b], the
      part of the other image in the mixture, and so of its label in the target.
    """
    chances = settings.mixup_alpha > 0, settings.cutmix_alpha > 0
    by_cutmix = chances[1] and not (chances[0] and rng.integers(2))
    partners = np.arange(len(pixels))
    partners[:count] = rng.permutation(count)
    if by_cutmix:
        pixels, share = cutmix(pixels, partners, settings.cutmix_alpha, rng)
    else:
        pixels, share = mixup(pixels, partners, settings.mixup_alpha, rng)
    return {
        "pixel_values": pixels,
        "mixed_labels": labels[partners],
        "mix_share": np.full(len(pixels), share, np.float32),
    }


def mixup(
    pixels: Float32[np.ndarray, "b h w c"],
    partners: Int[np.ndarray, " b"],
    alpha: float,
    rng: np.random.Generator,
) -> tuple[Float32[np.ndarray, "b h w c"], float]:
    """`(1 - s) x_i + s x_j` with j = partners[i] and s from Beta(alpha, alpha); the images and s.

    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, equation 1.
    """
    share = rng.beta(alpha, alpha)
    return np.float32(1 - share) * pixels + np.float32(share) * pixels[partners], share


def cutmix(
    pixels: Float32[np.ndarray, "b h w c"],
    partners: Int[np.ndarray, " b"],
    alpha: float,
    rng: np.random.Generator,
) -> tuple[Float32[np.ndarray, "b h w c"], float]:
    """Pastes a box of x_j, j = partners[i], into x_i.

    Its sides are the image's times sqrt(s), s from Beta(alpha, alpha), around a uniform centre;
    what would lie outside is cut off.

    Returns:
      The images, and the share of the area that was pasted.

    Source: Yun et al. 2019, CutMix, equations 1 and 2.
    """
    height, width = pixels.shape[1:3]
    half = math.sqrt(rng.beta(alpha, alpha)) / 2
    y, x = rng.integers(height), rng.integers(width)
    top, bottom = max(0, round(y - half * height)), min(height, round(y + half * height))
    left, right = max(0, round(x - half * width)), min(width, round(x + half * width))
    mixed = pixels.copy()
    mixed[:, top:bottom, left:right] = pixels[partners, top:bottom, left:right]
    return mixed, (bottom - top) * (right - left) / (height * width)
