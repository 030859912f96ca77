"""Attention in one kernel a pass: no scores, mask or dropout bits are ever in memory.

The same kernels (`fused_tiles`) for two kinds of device, that differ in how rows are laid out and
cut: for a GPU through Triton, for a TPU through Mosaic.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtune.core.device import Device
from jaxtune.core.dropout import Drop, head_ids
from jaxtune.models import fused_tiles
from jaxtune.models.blockwise import Blocks, cut, needed_blocks
from jaxtune.models.fused_call import Lowering, run_kernel
from jaxtune.models.fused_tiles import Fixed, Inputs, Known, Saved
from jaxtune.models.sight import BLIND, HIDDEN, Sight


class _Plan(NamedTuple):
    fixed: Fixed
    lowering: Lowering


def lowering_for(device: Device) -> Lowering:
    """What the kernels are compiled by; on a CPU they are interpreted."""
    if device.platform == "tpu":
        return Lowering("mosaic")
    return Lowering("triton", is_interpreted=device.platform == "cpu")


def block_size(lowering: Lowering, length: int) -> int:
    """Tokens of a block; rows are filled up to a multiple of it.

    A GPU computes products of 16 at least, and short rows in blocks that need no filling, if they
    can be; the memory of a TPU's core has columns of 128.

    Args:
      lowering: of the kernel.
      length: of a row, in tokens.
    """
    if lowering.compiler == "mosaic":
        return 128 if length <= 256 else 256
    fitting = math.gcd(length, 64)
    if length <= 256 and fitting >= 16:
        return fitting
    return min(max(1 << (length - 1).bit_length(), 16), 64)


def fused_rows(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    sight: Sight,
    dtype: Any,
    drop: Drop | None,
    lowering: Lowering,
    blocks: tuple[int, int] | None = None,
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
      lowering: see `lowering_for`.
      blocks: tokens of a block of queries and of keys; None for `block_size`.
    """
    (b, q, h, _), s = query.shape, key.shape[1]
    size_q, size_s = blocks or (block_size(lowering, q), block_size(lowering, s))
    counts = -(-q // size_q), -(-s // size_s)
    rate = drop.rate if drop else 0.0
    fixed = Fixed(jnp.dtype(dtype), sight.causal, sight.window, rate, size_q, size_s, counts)
    filled = counts[0] * size_q - q, counts[1] * size_s - s
    words = None if drop is None else jax.random.key_data(drop.key).reshape(-1)
    asking, asked = _known(sight, drop, filled)
    inputs = Inputs(
        _filled(query, filled[0]),
        _filled(key, filled[1]),
        _filled(value, filled[1]),
        asking,
        asked,
        _spans(sight, fixed, b) if max(counts) > 1 else None,
        words,
        None if drop is None else jnp.asarray(head_ids(h)),
    )
    parts, rest = inputs[:3], inputs[3:]
    attended: Any = _attend(_Plan(fixed, lowering), *parts, rest)
    return attended[:, :q]


def fused_packed(
    packed: Float[Array, "b t 3 h k"],
    sight: Sight,
    dtype: Any,
    drop: Drop | None,
    lowering: Lowering,
) -> Float[Array, "b t h k"]:
    """As `fused_rows`, of queries, keys and values side by side, as one product gives them.

    The gradient is in one array too, so that nothing takes them apart or puts them together. For a
    GPU alone, and rows that blocks fill.

    Args:
      packed: query, key and value of each token.
      sight: who sees whom.
      dtype: that the operands of products are rounded to.
      drop: of the probabilities; None for none.
      lowering: see `lowering_for`.
    """
    b, t, _, h, _ = packed.shape
    size = block_size(lowering, t)
    rate = drop.rate if drop else 0.0
    counts = t // size, t // size
    fixed = Fixed(jnp.dtype(dtype), sight.causal, sight.window, rate, size, size, counts)
    words = None if drop is None else jax.random.key_data(drop.key).reshape(-1)
    asking, asked = _known(sight, drop, (0, 0))
    spans = _spans(sight, fixed, b) if counts[0] > 1 else None
    heads = None if drop is None else jnp.asarray(head_ids(h))
    rest = asking, asked, spans, words, heads
    return _attend_packed(_Plan(fixed, lowering), packed, rest)


def is_packable(lowering: Lowering, length: int) -> bool:
    """Whether `fused_packed` takes rows of so many tokens."""
    return lowering.compiler == "triton" and length % block_size(lowering, length) == 0


def _known(sight: Sight, drop: Drop | None, filled: tuple[int, int]) -> tuple[Known, Known]:
    """Of the queries [b q 1], and of the keys [b 1 s]."""
    ids = (drop.asking, drop.noise_ids) if drop else (None, None)
    places = sight.asking_positions, sight.positions
    if not sight.causal and sight.window is None:
        places = None, None

    def fill(side: int, x: Array, filler: int = 0) -> Array:
        return jnp.expand_dims(_filled(x, filled[side], filler), 2 - side)

    def known(side: int, groups: Array, none: int) -> Known:
        others = (None if x is None else fill(side, x) for x in (places[side], ids[side]))
        return Known(fill(side, groups, none), *others)

    return known(0, sight.asking, BLIND), known(1, sight.asked, HIDDEN)


def _spans(sight: Sight, fixed: Fixed, b: int) -> tuple[Int[Array, "b n 2"], Int[Array, "b m 2"]]:
    """From the first to after the last block that is needed, for queries and for keys."""
    sides = cut(sight, Blocks(fixed.queries, fixed.keys, 1))
    needed = needed_blocks(sides, sight.causal, sight.window, b)  # [b n m]

    def span(needed: Array) -> Array:
        count = needed.shape[-1]
        first = jnp.min(jnp.where(needed, jnp.arange(count), count), axis=-1)
        stop = jnp.max(jnp.where(needed, jnp.arange(count) + 1, 0), axis=-1)
        return jnp.stack([first, stop], axis=-1).astype(jnp.int32)

    return span(needed), span(needed.swapaxes(1, 2))


def _filled(x: Array, count: int, filler: int = 0) -> Array:
    """With so many tokens more in each row, [b t ...]."""
    if not count:
        return x
    widths = ((0, 0), (0, count), *((0, 0),) * (x.ndim - 2))
    return jnp.pad(x, widths, constant_values=filler)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, query: Array, key: Array, value: Array, rest: Any) -> Array:
    return _forward(plan, query, key, value, rest)[0]


def _forward(
    plan: _Plan, query: Array, key: Array, value: Array, rest: Any
) -> tuple[Array, tuple[Any, ...]]:
    inputs = Inputs(query, key, value, *rest)
    out, logs = _run_forward(plan, inputs)
    # Without its last axis, which a TPU would fill up to 128 for as long as this is kept.
    return out, (*inputs[:3], rest, out, logs[..., 0])


def _backward(plan: _Plan, saved: tuple[Any, ...], g: Array) -> tuple[Any, ...]:
    query, key, value, rest, out, logs = saved
    inputs, back = Inputs(query, key, value, *rest), Saved(g, out, logs[..., None])
    return (*_run_backward(plan, inputs, back), None)


_attend.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend_packed(plan: _Plan, packed: Array, rest: Any) -> Any:
    return _packed_forward(plan, packed, rest)[0]


def _packed_forward(plan: _Plan, packed: Array, rest: Any) -> tuple[Array, tuple[Any, ...]]:
    out, logs = _run_forward(plan, Inputs(packed, packed, packed, *rest))
    return out, (packed, rest, out, logs[..., 0])


def _packed_backward(plan: _Plan, saved: tuple[Any, ...], g: Array) -> tuple[Any, ...]:
    packed, rest, out, logs = saved
    inputs = Inputs(packed, packed, packed, *rest)
    return (*_run_backward(plan, inputs, Saved(g, out, logs[..., None])), None)


_attend_packed.defvjp(_packed_forward, _packed_backward)


@partial(jax.jit, static_argnums=0)  # traced and lowered once for layers that are alike
def _run_forward(plan: _Plan, inputs: Inputs) -> tuple[Array, ...]:
    kernel = partial(fused_tiles.forward, plan.fixed)
    return run_kernel(kernel, plan.lowering, plan.fixed.counts[0], (inputs,), _written)


@partial(jax.jit, static_argnums=0)
def _run_backward(plan: _Plan, inputs: Inputs, back: Saved) -> tuple[Array, ...]:
    is_packed = inputs.query.ndim == 5
    backward = fused_tiles.packed_backward if is_packed else fused_tiles.backward
    kernel, blocks = partial(backward, plan.fixed), max(plan.fixed.counts)
    return run_kernel(kernel, plan.lowering, blocks, (inputs, back), _gradients)


def _written(inputs: Inputs) -> tuple[jax.ShapeDtypeStruct, ...]:
    b, q, *_, h, k = inputs.query.shape
    out = jax.ShapeDtypeStruct((b, q, h, k), inputs.query.dtype)
    return out, jax.ShapeDtypeStruct((b, h, q, 1), jnp.float32)


def _gradients(inputs: Inputs) -> tuple[jax.ShapeDtypeStruct, ...]:
    if inputs.query.ndim == 5:
        return (_like(inputs.query),)
    return _like(inputs.query), _like(inputs.key), _like(inputs.value)


def _like(x: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
