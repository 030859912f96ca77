"""Rules: the person says by regex what is trained."""

import dataclasses
from typing import Any

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.tuning.partition import FROZEN, TRAINABLE


@dataclasses.dataclass(frozen=True)
class Rules:
    """Ordered rules over parameter names; the first whose regex is found in a name decides.

    Attributes:
      rules: each is `REGEX=frozen` or `REGEX=trainable`, such as `embeddings/=frozen`; a last rule
        `.*=trainable` takes all that remain.
    """

    rules: tuple[str, ...]

    def labels(self, params: Params) -> Any:
        """The label of the first rule that matches each name.

        Raises:
          UserError: a rule that is malformed or matches nothing, or a parameter without a rule.
        """
        return paths.match([_parse(rule) for rule in self.rules], params)


def _parse(rule: str) -> tuple[str, str]:
    pattern, equals, label = rule.rpartition("=")
    if not equals or label not in (FROZEN, TRAINABLE):
        raise UserError(
            f"config.tuning.rules: found {rule!r}, expected REGEX={FROZEN} or REGEX={TRAINABLE}."
        )
    return pattern, label
