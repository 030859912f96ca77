"""A feed-forward block whose products do what stands beside them, for a GPU through Triton.

`gelu(x W + b) V` and its gradient are two kernels of our own and four products. The first gives
what is activated and its activation; the one of the gradient multiplies by the slope of the
activation, activates again, for the gradient of V, and sums for that of b. Kernels apart would
write and read the widest arrays of a layer between them.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from jaxtune.models.fused_call import Lowering, everywhere, triton_parameters
from jaxtune.models.fused_tiles import dot

_FEATURES, _STEP = 128, 32
"""Features of a tile, and how many of those that are summed over a step of its loop takes."""

_TOKENS = (128, 64, 32)
"""Of a tile: the first that divides them."""

_ERF_STEP = 0.3275911
_ERF_FACTORS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


class Widening(NamedTuple):
    """`x W + b` that is yet to be computed.

    Attributes:
      x: features of tokens.
      kernel: W.
      bias: b.
    """

    x: Float[Array, "*n k"]
    kernel: Float[Array, "k f"]
    bias: Float[Array, " f"]


def has_tiles(tokens: int, features: int, inner: int) -> bool:
    """Whether there are tiles for a block of so many tokens.

    Args:
      tokens: of all rows.
      features: of x, and of what the block gives.
      inner: of what is activated.
    """
    return tokens % _TOKENS[-1] == 0 and inner % _FEATURES == 0 and features % _STEP == 0


def feed_forward(
    first: Widening, second: Float[Array, "f d"], lowering: Lowering
) -> Float[Array, "*n d"]:
    """`gelu(x W + b) V`, with sums in float32; x, W and V are rounded to bfloat16.

    It has a gradient, but no gradient of that gradient. What waits for it is x and what is
    activated.

    Args:
      first: x, W and b, of sizes that `has_tiles`.
      second: V.
      lowering: what the kernels are compiled by.

    Returns:
      [*n d], bfloat16.
    """
    *lead, k = first.x.shape
    x = first.x.reshape(-1, k).astype(jnp.bfloat16)
    kernels = (kernel.astype(jnp.bfloat16) for kernel in (first.kernel, second))
    found: Any = _feed_forward(lowering, x, first.bias, *kernels)
    return found.reshape(*lead, second.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _feed_forward(lowering: Lowering, x: Array, bias: Array, first: Array, second: Array) -> Array:
    return _forward(lowering, x, bias, first, second)[0]


def _forward(
    lowering: Lowering, x: Array, bias: Array, first: Array, second: Array
) -> tuple[Array, Any]:
    wide, activated = _product_and_gelu(lowering, x, first, bias)
    return jnp.matmul(activated, second), (x, wide, bias, first, second)


def _backward(lowering: Lowering, saved: Any, g: Array) -> tuple[Array, ...]:
    x, wide, bias, first, second = saved
    to_wide, activated, sums = _product_by_slope(lowering, g, second, wide)
    to_bias = sums.sum(axis=0).astype(bias.dtype)
    return jnp.matmul(to_wide, first.T), to_bias, x.T @ to_wide, activated.T @ g


_feed_forward.defvjp(_forward, _backward)


@partial(jax.jit, static_argnums=0)  # traced and lowered once for layers that are alike
def _product_and_gelu(
    lowering: Lowering, x: Array, kernel: Array, bias: Array
) -> tuple[Array, Array]:
    """[n k], [k f] -> [n f] twice."""
    (n, k), f, rows = x.shape, kernel.shape[1], _rows(x.shape[0])
    tile = pl.BlockSpec((rows, _FEATURES), lambda i, j: (i, j))
    run = pl.pallas_call(
        _widen_tile,
        grid=(n // rows, f // _FEATURES),
        in_specs=(
            pl.BlockSpec((rows, k), lambda i, _: (i, 0)),
            pl.BlockSpec((k, _FEATURES), lambda _, j: (0, j)),
            pl.BlockSpec((_FEATURES,), lambda _, j: (j,)),
        ),
        out_specs=(tile, tile),
        out_shape=(jax.ShapeDtypeStruct((n, f), x.dtype),) * 2,
        interpret=lowering.is_interpreted,
        compiler_params=triton_parameters(lowering, warps=8, stages=3),
    )
    return everywhere(run)(x, kernel, bias)


@partial(jax.jit, static_argnums=0)
def _product_by_slope(
    lowering: Lowering, g: Array, kernel: Array, wide: Array
) -> tuple[Array, Array, Array]:
    """[n d], [f d], [n f] -> [n f] twice, and the sum over each tile's tokens [n' f]."""
    (n, d), f, rows = g.shape, kernel.shape[0], _rows(g.shape[0])
    tile = pl.BlockSpec((rows, _FEATURES), lambda i, j: (i, j))
    written = jax.ShapeDtypeStruct((n, f), wide.dtype)
    run = pl.pallas_call(
        _narrow_tile,
        grid=(n // rows, f // _FEATURES),
        in_specs=(
            pl.BlockSpec((rows, d), lambda i, _: (i, 0)),
            pl.BlockSpec((_FEATURES, d), lambda _, j: (j, 0)),
            tile,
        ),
        out_specs=(tile, tile, pl.BlockSpec((None, _FEATURES), lambda i, j: (i, j))),
        out_shape=(written, written, jax.ShapeDtypeStruct((n // rows, f), jnp.float32)),
        interpret=lowering.is_interpreted,
        compiler_params=triton_parameters(lowering, warps=8, stages=3),
    )
    return everywhere(run)(g, kernel, wide)


def _widen_tile(x: Any, kernel: Any, bias: Any, wide: Any, activated: Any) -> None:
    rounded = (_product(x, kernel, 0) + bias[:].astype(jnp.float32)).astype(wide.dtype)
    wide[:, :] = rounded
    activated[:, :] = gelu_and_slope(rounded.astype(jnp.float32))[0].astype(activated.dtype)


def _narrow_tile(g: Any, kernel: Any, wide: Any, to_wide: Any, activated: Any, sums: Any) -> None:
    total = _product(g, kernel, 1)
    found, slope = gelu_and_slope(wide[:, :].astype(jnp.float32))
    total *= slope
    to_wide[:, :] = total.astype(to_wide.dtype)
    activated[:, :] = found.astype(activated.dtype)
    sums[:] = total.sum(axis=0)


def gelu_and_slope(x: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """`x P(N < x)` and its derivative, N standard normal, by what Triton has: it has no erf.

    Off by 1.5e-7 of x at most.

    Args:
      x: float32.

    Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 7.1.26.
    """
    bell, t = jnp.exp(-0.5 * x * x), 1 / (1 + _ERF_STEP * 2**-0.5 * jnp.abs(x))
    tail = 0.0
    for factor in reversed(_ERF_FACTORS):
        tail = t * (factor + tail)
    tail = 0.5 * tail * bell  # P(N > |x|)
    below = jnp.where(x < 0, tail, 1 - tail)
    return x * below, below + x * bell * (2 * math.pi) ** -0.5


def _product(a: Any, b: Any, axis: int) -> Float[Array, "n f"]:
    """The sums over the last axis of `a` and an axis of `b`, references both, step by step."""

    def add(i: Any, total: Array) -> Array:
        step = pl.ds(pl.multiple_of(i * _STEP, _STEP), _STEP)
        return total + dot(a[:, step], b[step, :] if axis == 0 else b[:, step], (1, axis))

    zeros = jnp.zeros((a.shape[0], b.shape[1 - axis]), jnp.float32)
    return jax.lax.fori_loop(0, a.shape[1] // _STEP, add, zeros)


def _rows(tokens: int) -> int:
    return next(size for size in _TOKENS if tokens % size == 0)
