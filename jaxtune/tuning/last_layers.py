"""Partial fine-tuning: the top layers and the head are trained, all below is frozen."""

import dataclasses
from typing import Any

from jaxtune.core.types import Params
from jaxtune.tuning.depth import BELOW, LAYERS, check_count, depths, train_from


@dataclasses.dataclass(frozen=True)
class LastLayers:
    """Trains the `num_layers` layers nearest the output, and everything above them.

    Source: Lee, Tang and Lin 2019, What Would Elsa Do? Freezing Layers During Transformer
    Fine-Tuning.

    Attributes:
      num_layers: how many layers are trained; 0 trains the pooler and the head alone.
      layers: a regex whose first group is a layer's index, counted from the input.
      below: a regex for what lies below the first layer, and is frozen with it.
    """

    num_layers: int
    layers: str = LAYERS
    below: str = BELOW

    def labels(self, params: Params) -> Any:
        """FROZEN for the lower layers and what lies below them, TRAINABLE for the rest.

        Raises:
          UserError: the tree has no such layers, or fewer than `num_layers`.
        """
        found, total = depths(params, self.layers, self.below)
        check_count(self.num_layers, total)
        return train_from(params, found, total - self.num_layers)
