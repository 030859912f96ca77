"""The linear probe: the head alone is trained."""

import dataclasses
from typing import Any

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.tuning.partition import FROZEN, TRAINABLE

HEAD = r"(?:^|/)classifier/"
"""The names of the head of jaxtune's models."""


@dataclasses.dataclass(frozen=True)
class Head:
    """Trains the last linear layer; pooler and encoder are frozen, so no backward pass enters them.

    Source: Alain and Bengio 2017, Understanding Intermediate Layers Using Linear Classifier Probes.

    Attributes:
      head: a regex for the parameters of the head; None for a model that has none of its own.
    """

    head: str | None = HEAD

    def labels(self, params: Params) -> Any:
        """TRAINABLE for the head, FROZEN for the rest.

        Raises:
          UserError: no parameter is called so.
        """
        if self.head is None:
            raise UserError(
                "the strategy 'head' has nothing to train: this model's outputs come from its word"
                " embeddings, which are no head of its own. Choose another strategy."
            )
        return paths.match(((self.head, TRAINABLE), (".*", FROZEN)), params)


def head_rules(head: str | None) -> list[tuple[str, str]]:
    """The rule that trains the head; none where a model has no head of its own."""
    return [] if head is None else [(head, TRAINABLE)]
