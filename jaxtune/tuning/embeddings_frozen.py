"""Everything but the embeddings is trained."""

import dataclasses
from typing import Any

from jaxtune.core import paths
from jaxtune.core.types import Params
from jaxtune.tuning.depth import BELOW
from jaxtune.tuning.partition import FROZEN, TRAINABLE


@dataclasses.dataclass(frozen=True)
class EmbeddingsFrozen:
    """Freezes the embeddings, half of a small model's parameters, and trains the rest.

    Attributes:
      below: a regex for the embeddings.
    """

    below: str = BELOW

    def labels(self, params: Params) -> Any:
        """FROZEN for the embeddings, TRAINABLE for the rest.

        Raises:
          UserError: no parameter is called so.
        """
        return paths.match(((self.below, FROZEN), (".*", TRAINABLE)), params)
