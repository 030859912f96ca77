"""Union: several strategies at once; what any of them trains is trained."""

import dataclasses
from typing import Any

import jax

from jaxtune.core.types import ApplyFn, Params, PRNGKey
from jaxtune.tuning import injection
from jaxtune.tuning.partition import FROZEN, Strategy


@dataclasses.dataclass(frozen=True)
class Union:
    """Trains every parameter that one of its strategies trains, under the first one's label.

    In a config it is written with a plus, such as `lora+layernorm`.

    Attributes:
      strategies: at least one; those that add parameters are applied in this order.
    """

    strategies: tuple[Strategy, ...]

    @property
    def mergeable(self) -> bool:
        """Whether all of them are."""
        return all(map(injection.is_mergeable, self.strategies))

    def labels(self, params: Params) -> Any:
        """The first label that is not FROZEN.

        Raises:
          UserError: one of the strategies does not fit the tree.
        """
        trees = [strategy.labels(params) for strategy in self.strategies]
        return jax.tree.map(
            lambda *names: next((name for name in names if name != FROZEN), FROZEN), *trees
        )

    def extend(self, params: Params, key: PRNGKey) -> Params:
        """The tree with the added leaves of all strategies."""
        for strategy in self.strategies:
            params = injection.extend(strategy, params, key)
        return params

    def adapt(self, apply_fn: ApplyFn) -> ApplyFn:
        """The model with the edits of all strategies."""
        for strategy in self.strategies:
            apply_fn = injection.adapt(strategy, apply_fn)
        return apply_fn

    def merge(self, params: Params) -> Params:
        """The model's own tree, in the order in which the strategies act."""
        for strategy in self.strategies:
            params = injection.merge(strategy, params)
        return params
