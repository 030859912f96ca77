"""Partial fine-tuning: the top layers and the head are trained, all below is frozen."""

import dataclasses
from typing import Any

import jax

from jaxtune import paths
from jaxtune.errors import UserError, nearest
from jaxtune.tuning.partition import FROZEN, TRAINABLE
from jaxtune.types import Params


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
    layers: str = r"(?:^|/)layer/(\d+)/"
    below: str = r"(?:^|/)embeddings/"

    def labels(self, params: Params) -> Any:
        """FROZEN for the lower layers and what lies below them, TRAINABLE for the rest.

        Raises:
          UserError: the tree has no such layers, or fewer than `num_layers`.
        """
        names = paths.leaf_names(params)
        pattern, below = paths.compile_pattern(self.layers), paths.compile_pattern(self.below)
        if pattern.groups < 1:
            raise UserError(f"LastLayers: the regex {self.layers!r} has no group for the index.")
        layers = [int(m.group(1)) if (m := pattern.search(name)) else None for name in names]
        found = {layer for layer in layers if layer is not None}
        for field, matched in (("layers", found), ("below", any(map(below.search, names)))):
            if not matched:
                regex = getattr(self, field)
                raise UserError(
                    f"LastLayers: no parameter matches {regex!r}.{nearest(regex, names)}"
                    f" Set `{field}` to a regex for this model's names."
                )
        total = max(found) + 1
        if not 0 <= self.num_layers <= total:
            raise UserError(
                f"config.tuning.num_layers is {self.num_layers}, but the model has {total} layers:"
                f" expected 0 to {total}."
            )
        labels = [
            FROZEN
            if below.search(name) or (layer is not None and layer < total - self.num_layers)
            else TRAINABLE
            for name, layer in zip(names, layers, strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(params), labels)
