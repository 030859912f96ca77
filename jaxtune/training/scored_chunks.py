"""The scored tokens of a batch in chunks, so that what is large for each exists for one chunk only.

How many are scored is known when a step runs, so the loop over their chunks ends then.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtune.core.counting import share_counted

_FEW = 2**20  # logits, 4 MiB: so many are computed at once, also of tokens that are not scored
_LEAST, _PARTS = 64, 16


def counted_tokens(tokens: int, size: int) -> int | None:
    """As many tokens as the chunks of all scored ones have, where operations are counted."""
    share = share_counted()
    return None if share is None else min(-(-round(share * tokens) // size) * size, tokens)


def chunk_size(tokens: int, words: int) -> int | None:
    """Scored tokens whose logits exist at once; None for all of them, scored or not.

    A sixteenth of the tokens: logits and their gradient then take an eighth of the room of all
    logits, and the last chunk, which is seldom full, costs in vain a thirty-second of the products
    over all tokens. 64 at least, for each chunk reads the word embeddings and adds to their
    gradient, which takes as long as the products of some tens of tokens.

    Args:
      tokens: of a batch; no number in an export for any size, where all are computed at once.
      words: of the vocabulary.
    """
    if not isinstance(tokens, int) or tokens * words <= _FEW or tokens <= _LEAST:
        return None
    return max(_LEAST, -(-tokens // _PARTS // 8) * 8)


class Order(NamedTuple):
    """The scored tokens first, in chunks.

    Attributes:
      tokens: which they are, as they come; n, which is none, after the last.
      places: of each token, where it stands among the scored ones, if it is one.
      scored: whether it is.
    """

    tokens: Int[Array, " padded"]
    places: Int[Array, " n"]
    scored: Bool[Array, " n"]

    def chunk(self, x: Any, i: Any, size: int) -> Any:
        """The values of the tokens of chunk i in a tree of [n ...]; 0 where there is none."""
        which = jax.lax.dynamic_slice_in_dim(self.tokens, i * size, size)
        return jax.tree.map(lambda leaf: leaf.at[which].get(mode="fill", fill_value=0), x)

    def back(self, x: Float[Array, "padded ..."]) -> Float[Array, "n ..."]:
        """Values in this order, in that of the tokens; 0 for those that are not scored."""
        scored = self.scored.reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(scored, x[self.places], 0)


def run_chunks(
    weight: Float[Array, " n"],
    size: int,
    body: Callable[[Order, Array, Any], Any],
    make_start: Callable[[int], Any],
) -> tuple[Order, Any]:
    """Runs `(order, i, sums) -> sums` over the chunks that have a scored token.

    Args:
      weight: of each token, not 0 where it is scored.
      size: of a chunk.
      body: takes one chunk.
      make_start: (tokens of all chunks) -> the sums before the first.
    """
    count, scored = weight.shape[0], weight != 0
    padded = -(-count // size) * size
    tokens = jnp.nonzero(scored, size=padded, fill_value=count)[0]
    order = Order(tokens, jnp.cumsum(scored) - 1, scored)
    chunks = -(-jnp.sum(scored) // size)
    return order, jax.lax.fori_loop(0, chunks, partial(body, order), make_start(padded))


def put(
    x: Float[Array, "padded ..."], part: Float[Array, "size ..."], i: Any
) -> Float[Array, "padded ..."]:
    """Puts values of the tokens of chunk i in their place."""
    return jax.lax.dynamic_update_slice_in_dim(x, part.astype(x.dtype), i * len(part), axis=0)
