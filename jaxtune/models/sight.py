"""Which tokens see which, in as many numbers as there are tokens.

For short rows that is spelled out, as a bias for each pair of tokens. For long ones each path of
`attention` spells out a block of it at a time.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtune.core.types import Batch
from jaxtune.models.inputs import positions_of
from jaxtune.models.places import Places, pick

Bias = Float[Array, "b 1 q s"]
"""0 where a key may be attended to, the lowest finite float32 where it may not; of [b 1 1 s] where
what is seen does not depend on who looks."""

FREE, HIDDEN, BLIND = -1, -2, -3
"""Groups of keys that all see, of keys that nobody sees, and of queries that see no other keys."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("asking", "asked", "asking_positions", "positions"),
    meta_fields=("causal", "window", "in_order", "is_packed", "free"),
)
@dataclasses.dataclass(frozen=True)
class Sight:
    """A query sees the keys of its group that are near enough, and those of the group FREE.

    Attributes:
      asking: the group of each query, [b q].
      asked: of each key, [b s]; groups of the tokens of a row lie one after the other.
      asking_positions: of the queries in their examples, [b q]; None where nothing depends on them.
      positions: likewise, of the keys.
      causal: a token sees itself and those before it.
      window: a token sees those at most so many positions away; None for all.
      in_order: whether positions are those in the row but for where they start, so that what is
        near by position is near in the row.
      is_packed: whether rows hold several groups.
      free: how many keys all see; they stand before the others.
    """

    asking: Int[Array, "b q"]
    asked: Int[Array, "b s"]
    asking_positions: Int[Array, "b q"] | None = None
    positions: Int[Array, "b s"] | None = None
    causal: bool = False
    window: int | None = None
    in_order: bool = True
    is_packed: bool = False
    free: int = 0

    def pick(self, places: Places) -> "Sight":
        """Of the queries at some places alone; of all for None."""
        if places is None:
            return self
        asking, positions = self.asking, self.asking_positions
        positions = None if positions is None else pick(positions, places)
        return dataclasses.replace(
            self, asking=pick(asking, places), asking_positions=positions, in_order=False
        )

    def behind(self, count: int) -> "Sight":
        """With so many keys more, before the others, that all see."""
        before = ((0, 0), (count, 0))
        positions = None if self.positions is None else jnp.pad(self.positions, before)
        asked = jnp.pad(self.asked, before, constant_values=FREE)
        return dataclasses.replace(self, asked=asked, positions=positions, free=self.free + count)

    def bias(self) -> Bias:
        """For all queries and keys at once."""
        asking, asked = self.asking[:, None, :, None], self.asked[:, None, None, :]
        ahead = None
        if self.positions is not None and self.asking_positions is not None:
            ahead = self.positions[:, None, None, :] - self.asking_positions[:, None, :, None]
        allowed = sees(asking, asked, ahead, self.causal, self.window)
        return jnp.where(allowed, 0.0, jnp.finfo(jnp.float32).min)


def sees(
    asking: Int[Array, "*#n"],
    asked: Int[Array, "*#n"],
    ahead: Int[Array, "*#n"] | None,
    causal: bool,
    window: int | None,
) -> Bool[Array, "*n"]:
    """Whether queries see keys.

    Args:
      asking: groups of the queries.
      asked: groups of the keys.
      ahead: positions of the keys minus those of the queries; None where nothing depends on them.
      causal: see `Sight`.
      window: likewise.
    """
    allowed = asking == asked
    if ahead is not None:
        allowed = near(allowed, ahead, causal, window)
    return allowed | (asked == FREE)


def near(
    allowed: Bool[Array, "*n"], ahead: Int[Array, "*n"], causal: bool, window: int | None
) -> Bool[Array, "*n"]:
    """Those allowed that are near enough; see `sees`."""
    if causal:
        allowed = allowed & (ahead <= 0)
    if window is not None:
        allowed = allowed & (jnp.abs(ahead) <= window)
    return allowed


def sight_of(batch: Batch, causal: bool, window: int | None) -> Sight:
    """Which tokens of a batch see which; what fills packed rows sees nothing.

    Args:
      batch: see `attention.attention_bias`.
      causal: see `Sight`.
      window: likewise.
    """
    is_packed = "segment_ids" in batch
    if is_packed:
        groups = batch["segment_ids"]
        asking, asked = (jnp.where(groups > 0, groups, none) for none in (BLIND, HIDDEN))
    else:
        asked = jnp.where(batch["attention_mask"] > 0, 1, HIDDEN)
        asking = jnp.ones_like(asked)
    positions = positions_of(batch) if causal or window is not None else None
    in_order = is_packed or "position_ids" not in batch
    return Sight(asking, asked, positions, positions, causal, window, in_order, is_packed)
