"""LayerNorm tuning: scales and biases of the normalisation layers, and the head, are trained."""

import dataclasses
from typing import Any

from jaxtune.core import paths
from jaxtune.core.types import Params
from jaxtune.tuning.head import HEAD, head_rules
from jaxtune.tuning.partition import FROZEN, TRAINABLE


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Trains every normalisation layer and the head.

    Source: Qi, Liu et al. 2022, Parameter-Efficient Tuning on Layer Normalization for Pre-trained
    Language Models.

    Attributes:
      norms: a regex for the parameters of the normalisation layers.
      head: a regex for the parameters of the head; None for none.
    """

    norms: str = r"(?:^|/)LayerNorm/"
    head: str | None = HEAD

    def labels(self, params: Params) -> Any:
        """TRAINABLE for normalisation layers and head, FROZEN for the rest.

        Raises:
          UserError: one of the two matches no parameter.
        """
        rules = [(self.norms, TRAINABLE), *head_rules(self.head), (".*", FROZEN)]
        return paths.match(rules, params)
