"""Full fine-tuning: every parameter is trained."""

import dataclasses
from typing import Any

import jax

from jaxtune.core.types import Params
from jaxtune.tuning.partition import TRAINABLE


@dataclasses.dataclass(frozen=True)
class Full:
    """Every parameter is trained.

    Source: Devlin et al. 2019, BERT, section 4.
    """

    def labels(self, params: Params) -> Any:
        """TRAINABLE for every leaf."""
        return jax.tree.map(lambda _: TRAINABLE, params)
