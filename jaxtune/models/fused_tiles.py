"""What one program of the fused attention computes: tiles of scores that memory never holds.

A tile is of a block of queries and a block of keys. What is known of a query stands in a column and
what is known of a key in a row, so that a tile of "who sees whom" and of dropout's bits is their
broadcast, and is drawn where it is used. Nothing here depends on the device: what a program reads
and writes are references to a whole row of tokens of one head, wherever these lie.

Source: Dao 2023, FlashAttention-2, algorithms 1 and 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxtune.core.dropout import KeyWords, is_kept, key_words, mixed
from jaxtune.models.sight import sees


class Fixed(NamedTuple):
    """What is known when the program is made.

    Attributes:
      dtype: that the operands of products are rounded to.
      causal: a token sees itself and those before it.
      window: a token sees those at most so many positions away; None for all.
      rate: of dropout, 0 for none.
      queries: of a block.
      keys: of a block.
      counts: of blocks of queries and of keys in a row.
    """

    dtype: Any
    causal: bool
    window: int | None
    rate: float
    queries: int
    keys: int
    counts: tuple[int, int]


class Known(NamedTuple):
    """What is known of the queries, [q 1], or of the keys, [1 s]; None where nothing depends on it.

    Attributes:
      groups: see `Sight`.
      positions: of the tokens in their examples.
      noise_ids: of the tokens.
    """

    groups: Int[Array, "*n"]
    positions: Int[Array, "*n"] | None
    noise_ids: UInt32[Array, "*n"] | None

    def map(self, function: Callable[[Any], Any]) -> "Known":
        """With each that there is as a function makes it."""
        groups, *others = self
        return Known(function(groups), *(None if x is None else function(x) for x in others))


class Inputs(NamedTuple):
    """What the forward and the backward pass read; arrays, or in a kernel references to a row.

    Attributes:
      query: [q k] of one row and one head.
      key: [s k].
      value: [s k].
      asking: of the queries.
      asked: of the keys.
      spans: for all rows, the first block of keys that each block of queries is computed with, and
        the one after the last, [b n 2]; then likewise the queries of the keys, [b m 2]. None where
        there is one block of each.
      words: the data of the key that dropout draws by; None for no dropout.
      heads: ids of the heads, [h]; likewise.
    """

    query: Float[Array, "q k"]
    key: Float[Array, "s k"]
    value: Float[Array, "s k"]
    asking: Known
    asked: Known
    spans: tuple[Int[Array, "b n 2"], Int[Array, "b m 2"]] | None
    words: UInt32[Array, " n"] | None
    heads: UInt32[Array, " h"] | None


class Saved(NamedTuple):
    """What the backward pass reads beside.

    Attributes:
      grads: of the outputs, [q k].
      out: the outputs, [q k].
      logs: of the sums that the softmax divides by, [q 1].
    """

    grads: Float[Array, "q k"]
    out: Float[Array, "q k"]
    logs: Float[Array, "q 1"]


class _Here(NamedTuple):
    """Which program this is, asked once: in a loop of an interpreted kernel it cannot be.

    Attributes:
      row: of the batch.
      head: of it.
      block: of queries, or of keys.
      words: of the key that dropout draws by; None for no dropout.
      head_id: of the head; likewise.
    """

    row: Any
    head: Any
    block: Any
    words: KeyWords | None
    head_id: UInt32[Array, ""] | None


def forward(fixed: Fixed, refs: Inputs, out: Any, logs: Any) -> None:
    """Outputs of a block of queries: `dropout(softmax(q k^T / sqrt(k))) v`.

    Args:
      fixed: known when the program is made.
      refs: what is read; the program is that of (row, head, block of queries).
      out: reference to what is written, [q k]; 0 where nothing is seen.
      logs: likewise, [q 1]; see `Saved`.
    """
    here, least = _here(refs), jnp.finfo(jnp.float32).min
    rows = _block(here.block, fixed.queries)
    query, asking = _read(fixed, refs.query, rows), _column(refs, here, rows)

    def body(j: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        mixture, total, most = sums
        columns = _block(j, fixed.keys)
        asked = _row(refs, here, columns)
        scores = _scores(query, _read(fixed, refs.key, columns))
        scores = jnp.where(_seen(fixed, asking, asked), scores, least)
        higher = jnp.maximum(most, jnp.max(scores, axis=1, keepdims=True))
        probs, scale = jnp.exp(scores - higher), jnp.exp(most - higher)
        total = total * scale + jnp.sum(probs, axis=1, keepdims=True)
        probs = _dropped(fixed, asking, asked, probs).astype(fixed.dtype)
        added = dot(probs, _read(fixed, refs.value, columns), (1, 0))
        return mixture * scale + added, total, higher

    # What is hidden has half of this at most, so it weighs nothing beside the lowest maximum.
    one = jnp.zeros((fixed.queries, 1), jnp.float32)
    start = (jnp.zeros(query.shape, jnp.float32), one, one + least / 2)
    mixture, total, most = _loop(refs.spans, 0, here, fixed.counts[1], body, start)
    total = jnp.where(total > 0, total, 1.0)
    out[rows, :] = (mixture / total).astype(out.dtype)
    logs[rows, :] = most + jnp.log(total)


def backward(
    fixed: Fixed, refs: Inputs, saved: Saved, by_query: Any, by_key: Any, by_value: Any
) -> None:
    """Gradients of a block of keys and values, and of the block of queries of the same number.

    Args:
      fixed: known when the program is made.
      refs: what is read; the program is that of (row, head, block).
      saved: likewise.
      by_query: reference to what is written, [q k].
      by_key: likewise, [s k].
      by_value: likewise, [s k].
    """
    (n, m), here = fixed.counts, _here(refs)
    _where(m < n, here.block < m, lambda: _of_keys(fixed, refs, saved, here, (by_key, by_value)))
    _where(n < m, here.block < n, lambda: _of_queries(fixed, refs, saved, here, by_query))


class _Third(NamedTuple):
    """One of three in a reference to [t 3 k], as what is written alone, [t k]."""

    ref: Any
    which: int

    @property
    def dtype(self) -> Any:
        return self.ref.dtype

    def __setitem__(self, places: tuple[Any, Any], values: Array) -> None:
        rows, features = places
        self.ref[rows, self.which, features] = values


def packed_backward(fixed: Fixed, refs: Inputs, saved: Saved, by_all: Any) -> None:
    """As `backward`, with the gradients of query, key and value in one, [t 3 k]."""
    backward(fixed, refs, saved, *(_Third(by_all, which) for which in range(3)))


def _of_keys(
    fixed: Fixed, refs: Inputs, saved: Saved, here: _Here, written: tuple[Any, Any]
) -> None:
    (by_key, by_value), columns = written, _block(here.block, fixed.keys)
    key, value = (_read(fixed, x, columns) for x in (refs.key, refs.value))
    asked = _row(refs, here, columns)

    def body(j: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        rows = _block(j, fixed.queries)
        query, grads = (_read(fixed, x, rows) for x in (refs.query, saved.grads))
        asking, back = _column(refs, here, rows), (grads, _means(saved, rows), saved.logs[rows, :])
        kept, by_scores = _gradients(fixed, (query, key, value), back, asking, asked)
        return sums[0] + dot(by_scores, query, (0, 0)), sums[1] + dot(kept, grads, (0, 0))

    zeros = jnp.zeros(key.shape, jnp.float32)
    sums = _loop(refs.spans, 1, here, fixed.counts[0], body, (zeros, zeros))
    by_key[columns, :] = (sums[0] * key.shape[1] ** -0.5).astype(by_key.dtype)
    by_value[columns, :] = sums[1].astype(by_value.dtype)


def _of_queries(fixed: Fixed, refs: Inputs, saved: Saved, here: _Here, by_query: Any) -> None:
    rows = _block(here.block, fixed.queries)
    query, grads = (_read(fixed, x, rows) for x in (refs.query, saved.grads))
    asking, back = _column(refs, here, rows), (grads, _means(saved, rows), saved.logs[rows, :])

    def body(j: Any, total: Array) -> Array:
        columns = _block(j, fixed.keys)
        key, value = (_read(fixed, x, columns) for x in (refs.key, refs.value))
        asked = _row(refs, here, columns)
        _, by_scores = _gradients(fixed, (query, key, value), back, asking, asked)
        return total + dot(by_scores, key, (1, 0))

    total = _loop(refs.spans, 0, here, fixed.counts[1], body, jnp.zeros(query.shape, jnp.float32))
    by_query[rows, :] = (total * query.shape[1] ** -0.5).astype(by_query.dtype)


def _gradients(
    fixed: Fixed,
    parts: tuple[Array, Array, Array],
    back: tuple[Array, Array, Array],
    asking: Known,
    asked: Known,
) -> tuple[Array, Array]:
    """Of a tile, the probabilities that dropout leaves, and the gradient of the scores."""
    (query, key, value), (grads, means, logs) = parts, back
    seen = _seen(fixed, asking, asked)
    probs = jnp.where(seen, jnp.exp(_scores(query, key) - logs), 0.0)
    by_probs = _dropped(fixed, asking, asked, dot(grads, value, (1, 1)))
    kept = _dropped(fixed, asking, asked, probs)
    return kept.astype(fixed.dtype), (probs * (by_probs - means)).astype(fixed.dtype)


def _means(saved: Saved, rows: Any) -> Float[Array, "q 1"]:
    """Of the gradients of a query's probabilities, by these: `sum(grads out)`."""
    grads, out = (x[rows, :].astype(jnp.float32) for x in (saved.grads, saved.out))
    return jnp.sum(grads * out, axis=1, keepdims=True)


def _scores(query: Float[Array, "q k"], key: Float[Array, "s k"]) -> Float[Array, "q s"]:
    return dot(query, key, (1, 1)) * query.shape[1] ** -0.5


def _seen(fixed: Fixed, asking: Known, asked: Known) -> Bool[Array, "q s"]:
    ahead = None
    if asking.positions is not None and asked.positions is not None:
        ahead = asked.positions - asking.positions
    return sees(asking.groups, asked.groups, ahead, fixed.causal, fixed.window)


def _dropped(
    fixed: Fixed, asking: Known, asked: Known, x: Float[Array, "q s"]
) -> Float[Array, "q s"]:
    """What dropout leaves of a tile, as of `core.dropout`."""
    if asking.noise_ids is None or asked.noise_ids is None:
        return x
    scale = 0.0 if fixed.rate == 1 else 1 / (1 - fixed.rate)
    return jnp.where(is_kept(asking.noise_ids, asked.noise_ids, fixed.rate), x * scale, 0.0)


def _here(refs: Inputs) -> _Here:
    row, head, block = (pl.program_id(axis) for axis in range(3))
    if refs.words is None or refs.heads is None:
        return _Here(row, head, block, None, None)
    return _Here(row, head, block, key_words(refs.words), refs.heads[head])


def _column(refs: Inputs, here: _Here, rows: Any) -> Known:
    """Of a block of queries, [block 1]; noise ids are mixed, as `is_kept` takes them."""
    known = refs.asking.map(lambda x: x[rows, :])
    if known.noise_ids is None or here.words is None:
        return known
    return known._replace(noise_ids=mixed(known.noise_ids, here.words.of_rows))


def _row(refs: Inputs, here: _Here, columns: Any) -> Known:
    """Of a block of keys, [1 block], for the head of this program."""
    known = refs.asked.map(lambda x: x[:, columns])
    if known.noise_ids is None or here.words is None:
        return known
    ids = mixed(mixed(known.noise_ids, here.head_id), here.words.of_columns)
    return known._replace(noise_ids=ids)


def _read(fixed: Fixed, ref: Any, rows: Any) -> Float[Array, "block k"]:
    return ref[rows, :].astype(fixed.dtype)


def dot(
    a: Float[Array, "..."], b: Float[Array, "..."], axes: tuple[int, int]
) -> Float[Array, "..."]:
    """A product of two tiles over one axis of each, with float32 sums.

    Args:
      a: [m k] or [k m].
      b: [k n] or [n k], in the dtype of a.
      axes: that of k in each.

    Returns:
      [m n], float32.
    """
    dims = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _block(i: Any, size: int) -> Any:
    start = i * size
    return pl.ds(start if isinstance(start, int) else pl.multiple_of(start, size), size)


def _loop(
    spans: Any, side: int, here: _Here, count: int, body: Callable[..., Any], start: Any
) -> Any:
    """Runs `(block, sums) -> sums` over what the block of this program is computed with."""
    if spans is None:
        return body(0, start) if count == 1 else jax.lax.fori_loop(0, count, body, start)
    first, stop = (spans[side][here.row, here.block, end] for end in range(2))
    return jax.lax.fori_loop(first, stop, body, start)


def _where(is_needed: bool, condition: Any, body: Callable[[], None]) -> None:
    """Runs it where the condition holds; where none is needed, always."""
    if is_needed:
        pl.when(condition)(body)
    else:
        body()
