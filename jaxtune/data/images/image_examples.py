"""Images as they go into batches: decoded, augmented in training, and normalised."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.images import augment
from jaxtune.data.images.decode import WORKERS, Source, decode
from jaxtune.data.images.image_processor import ImageProcessor
from jaxtune.data.text.examples import Draw, Fields, labels_and_weight
from jaxtune.settings.data import AugmentationSettings


class ImageExamples(NamedTuple):
    """n images that are decoded each time that they go into a batch, for they may not fit memory.

    Attributes:
      images: where each of them is.
      processor: gives them the size and the scale of the model.
      labels: classes, int32 [n]; None where unlabelled.
      augmentation: of training.
    """

    images: Sequence[Source]
    processor: ImageProcessor
    labels: np.ndarray | None
    augmentation: AugmentationSettings = AugmentationSettings()

    @property
    def is_random(self) -> bool:
        """Whether an image changes from epoch to epoch."""
        return self.augmentation != AugmentationSettings()

    @property
    def mixes(self) -> bool:
        """Whether training mixes the images of a batch."""
        return self.labels is not None and augment.mixes(self.augmentation)

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Ones: all images are of one size."""
        return np.ones(len(self.images), np.int64)

    def collate(self, index: BatchIndex, batch_size: int, draw: Draw | None = None) -> Fields:
        """Decodes the images of a batch and fills it up to its full size.

        Args:
          index: which images; its length says nothing.
          batch_size: rows of the batch; those past the images are zeros of weight 0.
          draw: in training; None in evaluation, where nothing is random.

        Returns:
          float32 `pixel_values` [b h w c] and `weight` [b]; int32 `example_ids` [b], and `labels`
          [b], where there are any; and, where training mixes images, what `augment.mix` returns.
        """
        indices, size = index.indices, len(index.indices)
        pixels = np.zeros((batch_size, *self.processor.shape, 3), np.float32)

        def fill(first: int) -> None:
            for row in range(first, size, WORKERS):
                pixels[row] = self._pixels(int(indices[row]), draw)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(fill, range(WORKERS)))
        batch = {"pixel_values": pixels} | self.collate_labels(indices, batch_size)
        if draw is not None and self.mixes:
            first = int(indices[0]) if size else 0  # a batch may be all filling
            rng = augment.generator(draw, first, augment.OF_BATCH)
            batch |= augment.mix(pixels, batch["labels"], size, self.augmentation, rng)
        return batch

    def collate_labels(self, indices: Int[np.ndarray, " b"], batch_size: int) -> Fields:
        """What `collate` says of whole images, where training mixes none."""
        return labels_and_weight(self.labels, indices, batch_size)

    def _pixels(self, i: int, draw: Draw | None) -> Float32[np.ndarray, "h w c"]:
        """Image i as it goes into a batch."""
        image = decode(self.images[i])
        self._check_resized(self.images[i], image.size)
        if draw is None:
            image = self.processor.resize(image)
        else:
            rng = augment.generator(draw, i, augment.OF_IMAGE)
            image = augment.augment(image, self.processor, self.augmentation, rng)
        return self.processor.normalize(np.asarray(image))

    def _check_resized(self, source: Source, size: tuple[int, int]) -> None:
        """Refuses a long and narrow image that would be blown up to one of very many pixels."""
        width, height = self.processor.resized(size)
        if width * height > source.max_pixels:
            raise UserError(
                f"{source.place}: found an image of {size[0]} x {size[1]} pixels, which the model"
                f" takes resized to {width} x {height}, but expected at most {source.max_pixels}"
                " pixels, config.data.max_image_pixels. Crop it, or remove it."
            )

    def __repr__(self) -> str:
        """The number, not the contents."""
        return f"ImageExamples({len(self.images)} images)"


class DecodedImages(NamedTuple):
    """n unlabelled images as the model takes them, in memory.

    Attributes:
      pixels: of each.
    """

    pixels: Sequence[Float32[np.ndarray, "h w c"]]

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """As of `ImageExamples`."""
        return np.ones(len(self.pixels), np.int64)

    def collate(self, index: BatchIndex, batch_size: int) -> Fields:
        """As of `ImageExamples`, in evaluation."""
        own = [self.pixels[int(i)] for i in index.indices]
        pixels = np.zeros((batch_size, *self.pixels[0].shape), np.float32)
        pixels[: len(own)] = own
        return {"pixel_values": pixels} | labels_and_weight(None, index.indices, batch_size)


def decode_all(examples: ImageExamples) -> DecodedImages:
    """All images, as an evaluation takes them.

    Raises:
      UserError: names the image of what is wrong.
    """
    index = BatchIndex(np.arange(len(examples.images)), 1)
    return DecodedImages([*examples.collate(index, len(examples.images))["pixel_values"]])
