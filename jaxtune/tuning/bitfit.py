"""BitFit: the biases and the head are trained."""

import dataclasses
from typing import Any

from jaxtune.core import paths
from jaxtune.core.types import Params
from jaxtune.tuning.head import HEAD, head_rules
from jaxtune.tuning.partition import FROZEN, TRAINABLE


@dataclasses.dataclass(frozen=True)
class BitFit:
    """Trains every bias (those of LayerNorm included) and the head.

    Source: Ben Zaken, Ravfogel and Goldberg 2022, BitFit: Simple Parameter-efficient Fine-tuning.

    Attributes:
      biases: a regex for the biases.
      head: a regex for the parameters of the head; None for none.
    """

    biases: str = r"(?:^|/)bias$"
    head: str | None = HEAD

    def labels(self, params: Params) -> Any:
        """TRAINABLE for biases and head, FROZEN for the rest.

        Raises:
          UserError: one of the two matches no parameter.
        """
        rules = [(self.biases, TRAINABLE), *head_rules(self.head), (".*", FROZEN)]
        return paths.match(rules, params)
