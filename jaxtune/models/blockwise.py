"""Attention block by block: memory that grows with the tokens of a row, not with their square.

Scores are computed for one block of queries and one of keys at a time, with a running maximum and
sum, and once more in the backward pass. Blocks of which no query sees a key are left out, so a row
of several segments costs about what its segments cost alone.

Source: Rabe and Staats 2021, Self-attention Does Not Need O(n^2) Memory; Dao 2023,
FlashAttention-2, algorithms 1 and 2.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

from jaxtune.core import dropout
from jaxtune.core.dropout import Drop
from jaxtune.models.products import wide_product
from jaxtune.models.sight import BLIND, FREE, HIDDEN, Sight, sees


class Blocks(NamedTuple):
    """How rows are cut.

    Attributes:
      queries: of a block.
      keys: of a block.
      rows: that are worked on together; a block is left out where it can be in all of them.
    """

    queries: int
    keys: int
    rows: int


class Side(NamedTuple):
    """What is known of the queries, or of the keys, in n blocks of r rows."""

    groups: Int[Array, "n r block"]
    positions: Int[Array, "n r block"] | None
    noise_ids: UInt32[Array, "n r block"] | None


class _Fixed(NamedTuple):
    """What is known when the program is made; `rate` is 0 for no dropout."""

    dtype: Any
    blocks: Blocks
    causal: bool
    window: int | None
    rate: float


def blockwise_attention(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    sight: Sight,
    dtype: Any,
    drop: Drop | None,
    blocks: Blocks,
) -> Float[Array, "b q h k"]:
    """`dropout(softmax(q k^T / sqrt(k) + bias)) v`, with float32 sums; 0 where nothing is seen.

    It has a gradient, but no gradient of that gradient.

    Args:
      query: q of them a row.
      key: s of them a row.
      value: likewise.
      sight: who sees whom.
      dtype: that the operands of products are rounded to.
      drop: of the probabilities; None for none.
      blocks: b is a multiple of their rows.
    """
    fixed = _Fixed(dtype, blocks, sight.causal, sight.window, drop.rate if drop else 0.0)
    sides = cut(sight, blocks, drop)
    return _attend(fixed, query, key, value, sides, drop.key if drop else None)


def cut(sight: Sight, blocks: Blocks, drop: Drop | None = None) -> tuple[Side, Side]:
    """What is known of the queries and of the keys, in blocks."""
    ids = (drop.asking, drop.noise_ids) if drop else (None, None)

    def side(size: int, none: int, groups: Array, *others: Array | None) -> Side:
        first = _in_blocks(groups, size, blocks.rows, none)
        rest = (None if x is None else _in_blocks(x, size, blocks.rows) for x in others)
        return Side(first, *rest)

    return (
        side(blocks.queries, BLIND, sight.asking, sight.asking_positions, ids[0]),
        side(blocks.keys, HIDDEN, sight.asked, sight.positions, ids[1]),
    )


def needed_blocks(
    sides: tuple[Side, Side], causal: bool, window: int | None, groups: int
) -> Bool[Array, "g n m"]:
    """Which blocks of keys each block of queries is computed with.

    The tokens of a block lie between a first and a last one, in the order of their segments and
    of their positions there. Blocks that are not near each other in this order are left out; where
    segments do not lie one after the other some are computed in vain.

    Args:
      sides: the queries in g n blocks, the keys in g m.
      causal: a token sees itself and those before it.
      window: a token sees those at most so many positions away; None for all.
      groups: g, of rows; a block is needed where it is in any row of one.
    """
    ends = [[end.reshape(groups, -1, end.shape[1]) for end in _ends(side)] for side in sides]
    (first_q, low_q, last_q, high_q), (first_k, low_k, last_k, high_k) = (
        [end[:, :, None] if i == 0 else end[:, None] for end in four] for i, four in enumerate(ends)
    )  # [g n 1 r] and [g 1 m r]
    after = 0 if causal else window
    is_before = _precedes((first_k, low_k), (last_q, high_q), after)
    is_behind = _precedes((first_q, low_q), (last_k, high_k), window)
    free = jnp.any(sides[1].groups == FREE, axis=-1).reshape(groups, 1, -1, first_k.shape[-1])
    return jnp.any((is_before & is_behind) | (free & (last_q >= 0)), axis=-1)


def _ends(side: Side) -> tuple[Int[Array, "n r"], ...]:
    """(group, position) of the first token in each block, then of the last; fillers are none."""
    groups, is_real = side.groups, side.groups >= 0
    positions = jnp.zeros_like(groups) if side.positions is None else side.positions
    most = jnp.iinfo(jnp.int32).max
    first = jnp.min(jnp.where(is_real, groups, most), axis=-1)
    last = jnp.max(groups, axis=-1)
    low = jnp.min(jnp.where(groups == first[..., None], positions, most), axis=-1)
    high = jnp.max(jnp.where(groups == last[..., None], positions, -most), axis=-1)
    return first, low, last, high


def _precedes(a: tuple[Array, Array], b: tuple[Array, Array], slack: int | None) -> Array:
    """Whether (group, position) `a` is at most `b`, or in its group at most `slack` after it."""
    alike = a[0] == b[0]
    return (a[0] < b[0]) | (alike if slack is None else alike & (a[1] - slack <= b[1]))


def _in_blocks(x: Array, size: int, rows: int, filler: int = 0) -> Array:
    """[b t ...] -> [(g n) r size ...]: rows in g groups of r, tokens in n blocks."""
    b, t, *rest = x.shape
    count = -(-t // size)
    widths = [(0, 0), (0, count * size - t), *[(0, 0)] * len(rest)]
    x = jnp.pad(x, widths, constant_values=filler).reshape(b // rows, rows, count, size, *rest)
    return jnp.moveaxis(x, 1, 2).reshape(-1, rows, size, *rest)


def _from_blocks(x: Float[Array, "n r h size k"], b: int, t: int) -> Float[Array, "b t h k"]:
    """The inverse of `_in_blocks` followed by a transposition."""
    _, rows, h, size, k = x.shape
    x = x.reshape(b // rows, -1, rows, h, size, k).transpose(0, 2, 1, 4, 3, 5)
    return x.reshape(b, -1, h, k)[:, :t]


def _heads(x: Float[Array, "b t h k"], size: int, rows: int) -> Float[Array, "n r h size k"]:
    return _in_blocks(x, size, rows).transpose(0, 1, 3, 2, 4)


def _block(x: Shaped[Array, "n ..."], place: Int[Array, ""]) -> Shaped[Array, "..."]:
    return jax.lax.dynamic_index_in_dim(x, place, keepdims=False)


def _put(
    x: Shaped[Array, "n ..."], block: Shaped[Array, "..."], place: Int[Array, ""]
) -> Shaped[Array, "n ..."]:
    return jax.lax.dynamic_update_index_in_dim(x, block, place, 0)


_Sums = tuple[Array, ...]


class _Tile(NamedTuple):
    """One block of queries and one of keys."""

    asking: Int[Array, ""]
    asked: Int[Array, ""]


def _loop(fixed: _Fixed, sides: tuple[Side, Side], b: int, body: Any, start: Any) -> Any:
    """Runs `(tile, sums) -> sums` over the blocks that are needed."""
    groups = b // fixed.blocks.rows
    needed = needed_blocks(sides, fixed.causal, fixed.window, groups)
    _, n, m = needed.shape
    chosen = jnp.nonzero(needed.reshape(-1), size=needed.size, fill_value=0)[0]

    def run(i: Array, sums: Any) -> Any:
        place = _block(chosen, i)
        return body(_Tile(place // m, place // (n * m) * m + place % m), sums)

    return jax.lax.fori_loop(0, jnp.sum(needed), run, start)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    fixed: _Fixed, query: Array, key: Array, value: Array, sides: tuple[Side, Side], rng: Any
) -> Float[Array, "b q h k"]:
    return _forward(fixed, query, key, value, sides, rng)[0]


def _forward(
    fixed: _Fixed, query: Array, key: Array, value: Array, sides: tuple[Side, Side], rng: Any
) -> tuple[Array, Any]:
    (b, q, _, k), blocks = query.shape, fixed.blocks
    queries = _heads(query / k**0.5, blocks.queries, blocks.rows)  # [n r h q k]
    keys = _heads(key, blocks.keys, blocks.rows).swapaxes(-1, -2)  # [m r h k s]
    values = _heads(value, blocks.keys, blocks.rows)  # [m r h s k]
    wide = jnp.promote_types(fixed.dtype, jnp.float32)
    least = jnp.finfo(wide).min

    def body(tile: _Tile, sums: _Sums) -> _Sums:
        i, j = tile
        # Read once, or the compiler copies the whole sums for each block.
        mixed, total, most = jax.lax.optimization_barrier(tuple(_block(x, i) for x in sums))
        scores = wide_product(_block(queries, i), _block(keys, j), fixed.dtype)  # [r h q s]
        scores = jnp.where(_seen(fixed, sides, tile, False), scores, least)
        higher = jnp.maximum(most, jnp.max(scores, axis=-1))
        probs = jnp.exp(scores - higher[..., None])
        scale = jnp.exp(most - higher)
        total = total * scale + jnp.sum(probs, axis=-1)
        probs = _dropped(fixed, sides, tile, rng, probs, False)
        mixed = mixed * scale[..., None] + wide_product(probs, _block(values, j), fixed.dtype)
        new = zip(sums, (mixed, total, higher), strict=True)
        return tuple(_put(x, y, i) for x, y in new)

    # What is hidden has half of this at most, so it weighs nothing beside the lowest maximum.
    one = jnp.zeros(queries.shape[:-1], wide)
    start = (jnp.zeros(queries.shape, wide), one, one + least / 2)
    mixed, total, most = _loop(fixed, sides, b, body, start)
    total = jnp.where(total > 0, total, 1)
    out = _from_blocks(mixed / total[..., None], b, q).astype(query.dtype)
    return out, (query, key, value, sides, rng, out, most + jnp.log(total))


def _backward(fixed: _Fixed, saved: Any, g: Float[Array, "b q h k"]) -> tuple[Any, ...]:
    query, key, value, sides, rng, out, log_totals = saved
    (b, q, _, k), s, (size_q, size_k, rows) = query.shape, key.shape[1], fixed.blocks
    wide = jnp.promote_types(fixed.dtype, jnp.float32)
    queries = _heads(query / k**0.5, size_q, rows)  # [n r h q k]
    grads = _heads(g, size_q, rows)
    keys, values = (_heads(x, size_k, rows) for x in (key, value))  # [m r h s k]
    turned = [x.swapaxes(-1, -2) for x in (queries, grads, keys)]
    means = jnp.sum(_heads(g.astype(wide) * out.astype(wide), size_q, rows), axis=-1)  # [n r h q]

    def body(tile: _Tile, sums: _Sums) -> _Sums:
        i, j = tile.asking, tile.asked
        scores = wide_product(_block(keys, j), _block(turned[0], i), fixed.dtype)  # [r h s q]
        scores = scores - _block(log_totals, i)[..., None, :]
        probs = jnp.where(_seen(fixed, sides, tile, True), jnp.exp(scores), 0)
        by_probs = wide_product(_block(values, j), _block(turned[1], i), fixed.dtype)
        by_probs = _dropped(fixed, sides, tile, rng, by_probs, True)
        by_scores = probs * (by_probs - _block(means, i)[..., None, :])
        kept = _dropped(fixed, sides, tile, rng, probs, True)
        by_query = wide_product(_block(turned[2], j), by_scores, fixed.dtype)  # [r h k q]
        by_key = wide_product(by_scores, _block(queries, i), fixed.dtype)
        by_value = wide_product(kept, _block(grads, i), fixed.dtype)
        added = zip(sums, (i, j, j), (by_query, by_key, by_value), strict=True)
        return tuple(_put(x, _block(x, place) + y, place) for x, place, y in added)

    start = tuple(jnp.zeros(x.shape, wide) for x in (turned[0], keys, values))
    by_query, by_key, by_value = _loop(fixed, sides, b, body, start)
    by_query = _from_blocks(by_query.swapaxes(-1, -2), b, q) / k**0.5
    by_key, by_value = (_from_blocks(x, b, s) for x in (by_key, by_value))
    found = zip((by_query, by_key, by_value), (query, key, value), strict=True)
    return (*(x.astype(like.dtype) for x, like in found), None, None)


_attend.defvjp(_forward, _backward)


def _seen(fixed: _Fixed, sides: tuple[Side, Side], tile: _Tile, turned: bool) -> Array:
    """Who sees whom in a tile: [r 1 q s], or [r 1 s q] if turned."""
    asking, asked = _pair(sides, "groups", tile, turned)
    ahead = None
    if sides[0].positions is not None:
        places = _pair(sides, "positions", tile, turned)
        ahead = places[1] - places[0]
    return sees(asking, asked, ahead, fixed.causal, fixed.window)


def _pair(sides: tuple[Side, Side], name: str, tile: _Tile, turned: bool) -> list[Array]:
    """A field of the queries and of the keys of a tile, to be broadcast against each other."""
    values = [_block(getattr(side, name), place) for side, place in zip(sides, tile, strict=True)]
    axes = ((1, 2), (1, 3)) if turned else ((1, 3), (1, 2))
    return [jnp.expand_dims(x, axis) for x, axis in zip(values, axes, strict=True)]


def _dropped(
    fixed: _Fixed, sides: tuple[Side, Side], tile: _Tile, rng: Any, x: Array, turned: bool
) -> Array:
    """What dropout leaves of a tile's numbers, [r h q s], or [r h s q] if turned."""
    if not fixed.rate:
        return x
    asking, asked = _pair(sides, "noise_ids", tile, turned)
    columns = dropout.columns_of_heads(asked, x.shape[1])
    return dropout.dropout(x, fixed.rate, rng, asking, columns)
