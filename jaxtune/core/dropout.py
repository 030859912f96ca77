"""Dropout masks that belong to the tokens of the examples, not to their places in a batch.

An element's bit is a hash of the key, the token (which example it is of, and its position there)
and the feature. So a token is dropped alike whatever row it lies in: packed, padded, in a
microbatch or on another device. And a hash is cheap: Threefry, JAX's generator, spends about as
long on the masks of a BERT layer on a CPU as on its LayerNorms, its softmax and its residuals
together; a hash that compilers fuse into the multiplication costs next to nothing, also when it
is drawn twice. Keys are still JAX's own.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxtune.core.types import PRNGKey


def noise_ids_of(
    example_ids: Int[Array, "*#n"], positions: Int[Array, "*#n"] | int
) -> UInt32[Array, "*n"]:
    """Ids of tokens for noise: hashes, which differ but for accidents of one in 2^32.

    Args:
      example_ids: which example of the data a token is of.
      positions: its place in that example; broadcast against `example_ids`.
    """
    return _mix(_mix(_bits(example_ids)) + _bits(positions))


def keep_mask(
    key: PRNGKey, rate: float, rows: UInt32[Array, "*#n"], columns: UInt32[Array, "*#n"]
) -> Bool[Array, "*n"]:
    """True with probability `1 - rate`, to within 2^-32, independently for each element.

    An element follows from the key, its row's id and its column's id alone:
    `mix(mix(row + k_1) + mix(column + k_0)) >= rate 2^32`.

    Args:
      key: of this mask alone.
      rate: from 0 to 1.
      rows: ids, such as `noise_ids_of` gives; broadcast against `columns` to the shape of the mask.
      columns: ids, such as the numbers of features.
    """
    words = key_words(jax.random.key_data(key).reshape(-1))
    return is_kept(*_mixed_apart(rows, columns, words), rate)


class KeyWords(NamedTuple):
    """What a mask needs of its key."""

    of_rows: UInt32[Array, ""]
    of_columns: UInt32[Array, ""]


def key_words(data: UInt32[Array, " n"]) -> KeyWords:
    """The words k_1 and k_0 of a key's data, or of a reference to it."""
    return KeyWords(data[data.shape[0] - 1], data[0])


def mixed(ids: UInt32[Array, "*#n"], word: Any) -> UInt32[Array, "*n"]:
    """Ids of rows, or of columns, as `is_kept` takes them; `word` is a number, or [*#n] of them."""
    return _mix(ids + word)


def _mixed_apart(rows: Array, columns: Array, words: KeyWords) -> tuple[Array, Array]:
    """Few against the elements of the mask: compilers would fuse these into each element of it."""
    return jax.lax.optimization_barrier(
        (mixed(rows, words.of_rows), mixed(columns, words.of_columns))
    )


def is_kept(
    rows: UInt32[Array, "*#n"], columns: UInt32[Array, "*#n"], rate: float
) -> Bool[Array, "*n"]:
    """The last step of `keep_mask`, for kernels that draw a part of a mask at a time."""
    return _mix(rows + columns) >= np.uint32(min(round(rate * 2**32), 2**32 - 1))


@partial(jax.jit, static_argnames="rate", inline=True)  # traced once for layers that are alike
def dropout(
    x: Float[Array, "*n"],
    rate: float,
    key: PRNGKey,
    rows: UInt32[Array, "*#n"],
    columns: UInt32[Array, "*#n"],
) -> Float[Array, "*n"]:
    """`x / (1 - rate)` where `keep_mask` keeps it, else 0.

    Source: Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting, in its inverted form.
    """
    if rate == 1:
        return jnp.zeros_like(x)
    if x.dtype == jnp.bfloat16:
        words = key_words(jax.random.key_data(key).reshape(-1))
        return _narrow(rate, x, *_mixed_apart(rows, columns, words))
    kept = keep_mask(key, rate, rows, columns)
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow(rate: float, x: Array, rows: Array, columns: Array) -> Array:
    """Where memory traffic counts for more than arithmetic: no mask waits for the gradient."""
    kept = is_kept(rows, columns, rate)
    # Multiplied last: else a GPU keeps the gradient before it is multiplied, too.
    return jnp.where(kept, x, jnp.zeros((), x.dtype)) * jnp.asarray(1 / (1 - rate), x.dtype)


def _narrow_forward(rate: float, x: Array, rows: Array, columns: Array) -> tuple[Array, Any]:
    return _narrow(rate, x, rows, columns), (rows, columns)


def _narrow_backward(rate: float, ids: Any, g: Array) -> tuple[Array, None, None]:
    # Or compilers see the mask of the forward pass in it, and may keep that one after all.
    return _narrow(rate, g, *jax.lax.optimization_barrier(ids)), None, None


_narrow.defvjp(_narrow_forward, _narrow_backward)


def drop_features(
    x: Float[Array, "*n d"], rate: float, key: PRNGKey, noise_ids: UInt32[Array, "*n"]
) -> Float[Array, "*n d"]:
    """`dropout` of the features of each token."""
    return dropout(x, rate, key, noise_ids[..., None], jnp.arange(x.shape[-1], dtype=jnp.uint32))


def drop_probabilities(
    x: Float[Array, "b h q s"],
    rate: float,
    key: PRNGKey,
    asking: UInt32[Array, "b q"],
    noise_ids: UInt32[Array, "b s"],
) -> Float[Array, "b h q s"]:
    """`dropout` of what the tokens `asking` attend to the others with, in each of h heads."""
    columns = columns_of_heads(noise_ids[:, None, None, :], x.shape[1])  # [b h 1 s]
    return dropout(x, rate, key, asking[:, None, :, None], columns)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("key", "asking", "noise_ids"),
    meta_fields=("rate",),
)
@dataclasses.dataclass(frozen=True)
class Drop:
    """What `drop_probabilities` takes, for those who call it for a part of a row at a time."""

    rate: float
    key: PRNGKey
    asking: UInt32[Array, "b q"]
    noise_ids: UInt32[Array, "b s"]

    def __call__(self, x: Float[Array, "b h q s"]) -> Float[Array, "b h q s"]:
        """See `drop_probabilities`."""
        return drop_probabilities(x, self.rate, self.key, self.asking, self.noise_ids)


def columns_of_heads(noise_ids: UInt32[Array, "b 1 m n"], h: int) -> UInt32[Array, "b h m n"]:
    """Ids of tokens that are attended to, other ones in each of h heads."""
    return mixed(noise_ids, head_ids(h)[:, None, None])


def head_ids(h: int) -> UInt32[np.ndarray, " h"]:
    """What tells the heads of `columns_of_heads` apart; constants of a program."""
    return _mix(np.arange(h, dtype=np.uint32))


def same_key(key: PRNGKey, part: Int[Array, ""]) -> PRNGKey:
    """The `part_key` of `make_train_step` for models whose noise belongs to tokens."""
    del part
    return key


def _bits(x: Int[Array, "..."] | int) -> UInt32[Array, "..."]:
    """Two's complement."""
    return jnp.asarray(x, jnp.int32).astype(jnp.uint32)


def _mix(x: Any) -> Any:
    """A permutation of 32 bits in which each input bit changes each output bit half of the time.

    Source: Wellons 2018, Prospecting for Hash Functions, "lowbias32".
    """
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
