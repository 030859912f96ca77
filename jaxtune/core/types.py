"""The shapes of data that every layer shares. Axes: b batch, t tokens, d features, c classes."""

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxtune.core.errors import UserError

Params = Any
"""A nested dict of arrays; in a split tree a leaf may be None, a hole."""

Batch = dict[str, Array]
"""Named arrays that share axis b. `weight` is 0 for rows that only fill the shape: float32 [b], or
[b t] where tokens are scored, and 0 for those that are not; without it all count once.
`example_ids`, int32 [b], or [b s] of packed rows, says which examples of the data they are, for
noise that is theirs."""

PRNGKey = Key[Array, ""]


class Mean(NamedTuple):
    """A mean that has not been divided yet, so that sums over batches and devices stay exact.

    Two of them are added leaf by leaf; divide once, last, with `value`.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """Total / weight; NaN where nothing was weighed."""
        return self.total / self.weight


STATISTICS = "statistics"
"""The label of running statistics, which change with the batches and not by a gradient."""


class WithStatistics(NamedTuple):
    """What a model with running statistics gives in training.

    Attributes:
      outputs: as in evaluation.
      statistics: the new values of the parameters that are running statistics: a part of the
        parameter tree's nesting.
    """

    outputs: Array
    statistics: Params


class ApplyFn(Protocol):
    """Any pure function from parameters and a batch to outputs."""

    def __call__(self, params: Params, batch: Batch, *, key: PRNGKey | None, train: bool) -> Any:
        """Outputs [b ...] of a batch; `key` feeds dropout where `train` is true.

        A model with running statistics gives `WithStatistics` where `train` is true.
        """
        ...


class LossFn(Protocol):
    """The sum of the losses of a batch and the sum of their weights."""

    def __call__(self, outputs: Float[Array, "..."], batch: Batch) -> Mean:
        """Both sums, in float32."""
        ...


def weighted_mean(values: Float[Array, "..."], weight: Float[Array, "..."]) -> Mean:
    """Reduces values and weights of one shape to a Mean, in float32."""
    values, weight = values.astype(jnp.float32), weight.astype(jnp.float32)
    return Mean(jnp.sum(values * weight), jnp.sum(weight))


def weights(batch: Batch, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """The batch's `weight`; ones where it has none, so that each row, or token, counts once.

    Args:
      batch: of training or evaluation.
      shape: of what is weighed, [b] or [b t].

    Raises:
      UserError: a weight of another shape.
    """
    weight = batch.get("weight")
    if weight is None:
        return jnp.ones(shape, jnp.float32)
    if weight.shape != shape:
        raise UserError(
            f"the batch's weight has the shape {list(weight.shape)}, but what it weighs has"
            f" {list(shape)}: expected one for each row, or for each token where tokens are scored."
        )
    return weight


def segment_mask(batch: Batch) -> Bool[Array, "b s t"]:
    """Which tokens of each packed row belong to its first example, its second, and so on.

    Args:
      batch: packed, with `segment_ids` [b t] and `first_tokens` [b s].
    """
    numbers = 1 + jnp.arange(batch["first_tokens"].shape[1])
    return batch["segment_ids"][:, None, :] == numbers[:, None]


__all__ = [
    "STATISTICS",
    "ApplyFn",
    "Array",
    "Batch",
    "Float",
    "Int",
    "LossFn",
    "Mean",
    "PRNGKey",
    "Params",
    "WithStatistics",
    "segment_mask",
    "weighted_mean",
    "weights",
]
