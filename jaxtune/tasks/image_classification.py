"""Single-label classification of an image."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean
from jaxtune.data.images import images
from jaxtune.settings import LossSettings
from jaxtune.tasks import classification
from jaxtune.tasks.classification import CLASSIFICATION
from jaxtune.tasks.records import LazyRecords, Records
from jaxtune.tasks.task import TaskData, TaskOutput


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """Cross-entropy with the settings' options, to the mixed labels of mixed images.

    With y the label of an image, y' that of the one mixed into it, and s the latter's share, the
    target is (1 - s) onehot(y) + s onehot(y').

    Args:
      settings: of the loss.
      class_names: c names in the order of the outputs.
      labels: of the training rows, int32 [n].
    """
    loss_fn = classification.make_loss(settings, class_names, labels)

    def mixed_loss(outputs: Float[Array, "b c"], batch: Batch) -> Mean:
        if "mix_share" not in batch:
            return loss_fn(outputs, batch)
        own, other = (
            jax.nn.one_hot(batch[name], len(class_names)) for name in ("labels", "mixed_labels")
        )
        share = batch["mix_share"][:, None]  # [b 1]
        return loss_fn(outputs, batch | {"labels": (1.0 - share) * own + share * other})

    return mixed_loss


def decode(
    outputs: np.ndarray,
    examples: Any,
    class_names: Sequence[str],
    top_k: int | None = None,
    temperature: float = 1.0,
) -> Records:
    """The file, and as `classification.decode`."""
    records = classification.decode(outputs, examples, class_names, top_k, temperature)
    images = examples.images
    return LazyRecords(len(records), lambda i: {"file": images[i].name} | records[i])


IMAGE_CLASSIFICATION = CLASSIFICATION._replace(
    name="image_classification",
    head="image",
    data=TaskData(
        images.CLASSES,
        images.encode,
        images.read_new,
        images.IMAGES,
        classification.reorder,
        once=images.once,
    ),
    loss=CLASSIFICATION.loss._replace(make=make_loss),
    output=TaskOutput(decode, ranks=True),
)
