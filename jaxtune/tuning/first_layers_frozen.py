"""Partial fine-tuning, counted from the input: embeddings and the lowest layers are frozen."""

import dataclasses
from typing import Any

from jaxtune.core.types import Params
from jaxtune.tuning.depth import BELOW, LAYERS, check_count, depths, train_from


@dataclasses.dataclass(frozen=True)
class FirstLayersFrozen:
    """Freezes the embeddings and the `num_layers` layers nearest the input.

    Attributes:
      num_layers: how many layers are frozen; 0 freezes the embeddings alone.
      layers: a regex whose first group is a layer's index, counted from the input.
      below: a regex for what lies below the first layer, and is frozen with it.
    """

    num_layers: int
    layers: str = LAYERS
    below: str = BELOW

    def labels(self, params: Params) -> Any:
        """FROZEN for the lowest layers and what lies below them, TRAINABLE for the rest.

        Raises:
          UserError: the tree has no such layers, or fewer than `num_layers`.
        """
        found, total = depths(params, self.layers, self.below)
        check_count(self.num_layers, total)
        return train_from(params, found, self.num_layers)
