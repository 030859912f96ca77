"""The linear probe: the head alone is trained."""

import dataclasses
from typing import Any

from jaxtune import paths
from jaxtune.tuning.partition import FROZEN, TRAINABLE
from jaxtune.types import Params

HEAD = r"(?:^|/)classifier/"
"""The names of the head of jaxtune's models."""


@dataclasses.dataclass(frozen=True)
class Head:
    """Trains the last linear layer; pooler and encoder are frozen, so no backward pass enters them.

    Source: Alain and Bengio 2017, Understanding Intermediate Layers Using Linear Classifier Probes.

    Attributes:
      head: a regex for the parameters of the head.
    """

    head: str = HEAD

    def labels(self, params: Params) -> Any:
        """TRAINABLE for the head, FROZEN for the rest.

        Raises:
          UserError: no parameter is called so.
        """
        return paths.match(((self.head, TRAINABLE), (".*", FROZEN)), params)
