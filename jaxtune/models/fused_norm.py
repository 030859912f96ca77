"""`LayerNorm(residual + dropout(y + bias))` in one kernel a pass, for a GPU through Triton.

Compilers take up to ten kernels for it and its gradient, and keep some of what stands between them
in memory. Here the sum waits for the gradient alone, in bfloat16; the dropout mask is drawn where
it is used, and what is summed over tokens leaves the kernel as one row of each program.

A tile is of a few tokens, and of features in pieces of a power of two, as Triton has them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, UInt32

from jaxtune.core.dropout import is_kept, key_words, mixed
from jaxtune.models.fused_call import Lowering, everywhere, triton_parameters

TOKENS = 8
"""Of a tile."""

_PIECE, _MOST_PIECES = 64, 8  # the smallest piece of the features, and how many at most
_PROGRAMS = 128  # of a backward pass, about as many as a card computes side by side


class Noise(NamedTuple):
    """What dropout draws by.

    Attributes:
      words: the data of its key.
      ids: of the tokens.
    """

    words: UInt32[Array, " n"]
    ids: UInt32[Array, "*n"]


class _Plan(NamedTuple):
    eps: float
    rate: float
    lowering: Lowering


def fits(tokens: int, features: int) -> bool:
    """Whether there are tiles for so many tokens of so many features."""
    piece = features & -features
    return (
        tokens % TOKENS == 0
        and min(piece, 1024) >= _PIECE
        and features <= _MOST_PIECES * min(piece, 1024)
    )


def normed_sum(
    y: Float[Array, "*n d"],
    residual: Float[Array, "*n d"],
    vectors: tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, " d"]],
    noise: Noise | None,
    rate: float,
    eps: float,
    lowering: Lowering,
) -> Float[Array, "*n d"]:
    """`LayerNorm(residual + dropout(y + bias))`, in the dtype of the residual.

    It has a gradient, but no gradient of that gradient.

    Args:
      y: what a product gave.
      residual: that it is added to.
      vectors: the bias of the product, the scale and the bias of LayerNorm.
      noise: that dropout draws by; None for no dropout.
      rate: of dropout.
      eps: added to the variance.
      lowering: what the kernels are compiled by.

    Source: Ba et al. 2016, Layer Normalization, equation 4.
    """
    d = y.shape[-1]
    flat = None if noise is None else Noise(noise.words, noise.ids.reshape(-1, 1))
    plan = _Plan(eps, rate if noise is not None else 0.0, lowering)
    found: Any = _normed(plan, y.reshape(-1, d), residual.reshape(-1, d), vectors, flat)
    return found.reshape(residual.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normed(plan: _Plan, y: Array, residual: Array, vectors: Any, noise: Noise | None) -> Array:
    return _forward(plan, y, residual, vectors, noise)[0]


def _forward(
    plan: _Plan, y: Array, residual: Array, vectors: Any, noise: Noise | None
) -> tuple[Array, Any]:
    out, total = _run_forward(plan, y, residual, vectors, noise)
    return out, (total, jnp.zeros(0, y.dtype), vectors, noise)


def _backward(plan: _Plan, saved: Any, g: Array) -> tuple[Any, ...]:
    total, like_y, vectors, noise = saved
    to_total, *others = _run_backward(plan, total, g.astype(total.dtype), vectors[1], noise)
    *to_y, sums = others
    sums = sums.sum(axis=0)
    to_vectors = tuple(row.astype(x.dtype) for row, x in zip(sums, vectors, strict=True))
    return (*(x.astype(like_y.dtype) for x in (*to_y, to_total)[:1]), to_total, to_vectors, None)


_normed.defvjp(_forward, _backward)


@partial(jax.jit, static_argnums=0)  # traced and lowered once for layers that are alike
def _run_forward(
    plan: _Plan, y: Array, residual: Array, vectors: Any, noise: Noise | None
) -> tuple[Array, Array]:
    (n, d), written = y.shape, jax.ShapeDtypeStruct(residual.shape, residual.dtype)
    rows = pl.BlockSpec((TOKENS, d), lambda i: (i, 0))
    run = pl.pallas_call(
        partial(_forward_tile, plan),
        grid=(n // TOKENS,),
        in_specs=(rows, rows, _whole(vectors), _noise_specs(noise, TOKENS)),
        out_specs=(rows, rows),
        out_shape=(written, written),
        interpret=plan.lowering.is_interpreted,
        compiler_params=triton_parameters(plan.lowering, warps=4, stages=1),
    )
    return everywhere(run)(y, residual, vectors, noise)


@partial(jax.jit, static_argnums=0)
def _run_backward(
    plan: _Plan, total: Array, g: Array, scale: Array, noise: Noise | None
) -> tuple[Array, ...]:
    """Gradients of the residual, with dropout of y too, and three sums over each program's rows."""
    n, d = total.shape
    turns = max(1, -(-n // (TOKENS * _PROGRAMS)))
    while n % (TOKENS * turns):
        turns += 1
    programs, own = n // (TOKENS * turns), TOKENS * turns
    rows = pl.BlockSpec((own, d), lambda i: (i, 0))
    by_rows = jax.ShapeDtypeStruct(total.shape, total.dtype)
    sums = pl.BlockSpec((None, 3, d), lambda i: (i, 0, 0))
    shapes = (by_rows,) * (1 if noise is None else 2)
    run = pl.pallas_call(
        partial(_backward_tiles, plan, turns),
        grid=(programs,),
        in_specs=(rows, rows, _whole(scale), _noise_specs(noise, own)),
        out_specs=(*(rows for _ in shapes), sums),
        out_shape=(*shapes, jax.ShapeDtypeStruct((programs, 3, d), jnp.float32)),
        interpret=plan.lowering.is_interpreted,
        compiler_params=triton_parameters(plan.lowering, warps=4, stages=1),
    )
    return everywhere(run)(total, g, scale, noise)


def _forward_tile(
    plan: _Plan, y: Any, residual: Any, vectors: Any, noise: Any, out: Any, total: Any
) -> None:
    """Of a few tokens: what is normed, and what it is the norm of."""
    d, rows = y.shape[-1], pl.ds(0, TOKENS)
    own_bias, scale, bias = vectors
    pieces = _pieces(d)
    sums = []
    for piece in pieces:
        added = _wide(y[rows, piece]) + own_bias[piece]
        added = _dropped(plan, noise, rows, piece, added)
        sums.append((_wide(residual[rows, piece]) + added).astype(total.dtype))
        total[rows, piece] = sums[-1]
    sums = [_wide(x) for x in sums]
    mean, inverse = _statistics(sums, plan.eps)
    for x, piece in zip(sums, pieces, strict=True):
        out[rows, piece] = ((x - mean) * inverse * scale[piece] + bias[piece]).astype(out.dtype)


def _backward_tiles(
    plan: _Plan, turns: int, total: Any, g: Any, scale: Any, noise: Any, *written: Any
) -> None:
    """Of a few tokens at a time: gradients of what was added, and their sums."""
    *by_rows, sums = written
    d = total.shape[-1]
    pieces = _pieces(d)
    scales = [scale[piece] for piece in pieces]

    def body(i: Any, found: tuple[Array, ...]) -> tuple[Array, ...]:
        rows = pl.ds(pl.multiple_of(i * TOKENS, TOKENS), TOKENS)
        x = [_wide(total[rows, piece]) for piece in pieces]
        grads = [_wide(g[rows, piece]) for piece in pieces]
        mean, inverse = _statistics(x, plan.eps)
        x = [(part - mean) * inverse for part in x]
        to_x = [part * factor for part, factor in zip(grads, scales, strict=True)]
        level = sum(jnp.sum(part, axis=1, keepdims=True) for part in to_x) / d
        along = [jnp.sum(a * b, axis=1, keepdims=True) for a, b in zip(to_x, x, strict=True)]
        along, added = sum(along) / d, []
        for k, piece in enumerate(pieces):
            by_total = (inverse * (to_x[k] - level - x[k] * along)).astype(total.dtype)
            by_y = _dropped(plan, noise, rows, piece, _wide(by_total))
            for ref, value in zip(by_rows, (by_total, by_y), strict=False):
                ref[rows, piece] = value.astype(ref.dtype)
            added += [by_y, grads[k] * x[k], grads[k]]
        return tuple(old + new.sum(axis=0) for old, new in zip(found, added, strict=True))

    zeros = tuple(jnp.zeros(piece.size, jnp.float32) for piece in pieces for _ in range(3))
    found = jax.lax.fori_loop(0, turns, body, zeros)
    for k, piece in enumerate(pieces):
        for row in range(3):
            sums[row, piece] = found[3 * k + row]


def _pieces(d: int) -> list[Any]:
    """The features, in pieces of the same power of two."""
    size = min(d & -d, 1024)
    return [pl.ds(start, size) for start in range(0, d, size)]


def _wide(x: Array) -> Array:
    return x.astype(jnp.float32)


def _statistics(parts: list[Array], eps: float) -> tuple[Array, Array]:
    """The mean, and one over the deviation, of each token, whose features come in parts."""
    d = sum(part.shape[1] for part in parts)
    mean: Any = sum(jnp.sum(part, axis=1, keepdims=True) for part in parts) / d
    squares: Any = sum(jnp.sum((part - mean) ** 2, axis=1, keepdims=True) for part in parts)
    return mean, jax.lax.rsqrt(squares / d + eps)


def _dropped(plan: _Plan, noise: Any, rows: Any, piece: Any, x: Array) -> Array:
    """What dropout leaves of a tile, as of `core.dropout`."""
    if noise is None or not plan.rate:
        return x
    words = key_words(noise.words)
    places = piece.start + jax.lax.broadcasted_iota(jnp.uint32, (1, piece.size), 1)
    tokens = mixed(noise.ids[rows, :], words.of_rows)
    kept = is_kept(tokens, mixed(places, words.of_columns), plan.rate)
    return jnp.where(kept, x * (0.0 if plan.rate == 1 else 1 / (1 - plan.rate)), 0.0)


def _whole(tree: Any) -> Any:
    return jax.tree.map(lambda x: pl.BlockSpec(x.shape, lambda i: (0,) * x.ndim), tree)


def _noise_specs(noise: Noise | None, rows: int) -> Any:
    if noise is None:
        return None
    ids: Any = pl.BlockSpec((rows, 1), lambda i: (i, 0))
    return Noise(_whole(noise.words), ids)
