"""Where a kernel of the fused attention finds a row of a head, on a GPU and on a TPU.

A program is that of a row, a head and a block. It is given the whole row, and takes blocks of it:
of a GPU's memory nothing is read before that; on a TPU the row comes into the core's memory, once
for all blocks. There rows of a head lie one after the other, [b h t k]; a GPU reads [b t h k] as
the products of the layer give it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

from jaxtune.models.fused_tiles import Inputs, Saved

_WORK, _MOST = 16 * 2**20, 112 * 2**20
"""Bytes of the 128 MiB of a TPU's core: for tiles, and that a kernel may take in all."""


class Lowering(NamedTuple):
    """How a kernel becomes a program of a device.

    Attributes:
      compiler: `triton` for a GPU, `mosaic` for a TPU.
      is_interpreted: by operations of the device that is there, slowly, to check the kernel.
    """

    compiler: str
    is_interpreted: bool = False


def fits(lowering: Lowering, queries: int, keys: int, features: int) -> bool:
    """Whether a device has room for rows of so many tokens, whatever their dtype.

    Args:
      lowering: of the kernel.
      queries: of a row.
      keys: of a row.
      features: of a head.
    """
    if lowering.compiler == "triton":
        return True
    # Of each token its features, four times for the backward pass, and of a query four numbers,
    # each of which takes a row of 128; twice, as the next row is read ahead of time.
    row = 2 * 4 * 128
    tokens = 4 * -(-features // 128) * (queries + keys)
    return row * (tokens + 4 * queries) <= _MOST - _WORK


class _Kinds(NamedTuple):
    """What is made for each kind of array, such as a `BlockSpec`.

    Attributes:
      tokens: [b t h k]; or [b t 3 h k] and which of the three, None for all.
      logs: [b h t 1].
      known: of tokens, [b t 1] or [b 1 t].
      few: numbers that are read one at a time.
      heads: those of them that are for the heads, [h].
    """

    tokens: Any
    logs: Any
    known: Any
    few: Any
    heads: Any


Outs = Callable[[Inputs], tuple[jax.ShapeDtypeStruct, ...]]
"""The shapes that a kernel writes, [b t h k], or [b h t 1] of logarithms, for what it reads."""


def run_kernel(
    kernel: Callable[..., None], lowering: Lowering, blocks: int, reads: tuple[Any, ...], outs: Outs
) -> tuple[Array, ...]:
    """Runs `kernel(*references of reads, *references of outs)` for each row, head and block.

    A compiler cannot cut a kernel, so where a mesh shares out the heads each device is told to run
    it on its own.

    Args:
      kernel: of `fused_tiles`.
      lowering: how it is compiled.
      blocks: of a row.
      reads: `Inputs`, and of a backward pass `Saved`; tokens are [b t h k].
      outs: what it writes.
    """
    here, free = partial(_run_here, kernel, lowering, blocks, outs), _free_axes()
    if not free:
        return here(*reads)
    axis = "tensor" if "tensor" in free else None
    logs, whole = PartitionSpec(None, axis), PartitionSpec()
    choose = _Kinds(
        lambda x, _: PartitionSpec(*(None,) * (x.ndim - 2), axis),
        *(lambda _, spec=spec: spec for spec in (logs, whole, whole, PartitionSpec(axis))),
    )
    return jax.shard_map(
        lambda *reads: here(*reads),
        in_specs=tuple(_each(choose, part) for part in reads),
        out_specs=tuple(_kind(choose, x)(x) for x in outs(reads[0])),
        axis_names=free,
        check_vma=False,
    )(*reads)


def everywhere(run: Callable[..., Any]) -> Callable[..., Any]:
    """A compiler cannot cut a kernel: each device that a mesh shares a row among computes all.

    Args:
      run: a kernel, of arrays and trees of them, of any shapes and dtypes.
    """
    free, spec = _free_axes(), PartitionSpec()
    if not free:
        return run
    return jax.shard_map(
        lambda *args: run(*args), in_specs=spec, out_specs=spec, axis_names=free, check_vma=False
    )


def _free_axes() -> set[str]:
    """Those of the mesh that the compiler shares arrays out over."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name for name, kind in kinds if kind != AxisType.Manual}


def _run_here(
    kernel: Callable[..., None], lowering: Lowering, blocks: int, outs: Outs, *reads: Any
) -> tuple[Array, ...]:
    (b, *_, h, _), shapes = reads[0].query.shape, outs(reads[0])
    as_is = _Kinds(lambda x, _: x, *(lambda x: x,) * 4)
    turn = as_is._replace(tokens=_turned) if lowering.compiler == "mosaic" else as_is
    reads = tuple(_each(turn, part) for part in reads)
    shapes = tuple(_kind(turn, x)(x) for x in shapes)
    specs = _mosaic_specs() if lowering.compiler == "mosaic" else _triton_specs()
    run = pl.pallas_call(
        kernel,
        grid=(b, h, blocks),
        in_specs=tuple(_each(specs, part) for part in reads),
        out_specs=tuple(_kind(specs, x)(x) for x in shapes),
        out_shape=shapes,
        interpret=lowering.is_interpreted,
        compiler_params=_parameters(lowering, reads, shapes),
    )
    return tuple(_kind(turn, x)(x) for x in run(*reads))


def _each(kinds: _Kinds, part: Inputs | Saved) -> Any:
    """What `kinds` make of each array; None stays."""
    if isinstance(part, Saved):
        grads, out = (kinds.tokens(x, None) for x in (part.grads, part.out))
        return Saved(grads, out, kinds.logs(part.logs))
    query, key, value = (kinds.tokens(x, which) for which, x in enumerate(part[:3]))
    spans, words = (None if x is None else jax.tree.map(kinds.few, x) for x in part[5:7])
    return Inputs(
        query=query,
        key=key,
        value=value,
        asking=part.asking.map(kinds.known),
        asked=part.asked.map(kinds.known),
        spans=spans,
        words=words,
        heads=None if part.heads is None else kinds.heads(part.heads),
    )


def _kind(kinds: _Kinds, written: Any) -> Any:
    """Of what a kernel writes."""
    return kinds.logs if written.shape[-1] == 1 else lambda x: kinds.tokens(x, None)


def _turned(x: Any, which: int | None) -> Any:
    """[b t h k] -> [b h t k], or back."""
    del which
    if isinstance(x, jax.ShapeDtypeStruct):
        b, t, h, k = x.shape
        return jax.ShapeDtypeStruct((b, h, t, k), x.dtype)
    return x.swapaxes(1, 2)


def _row_of_head(x: Any) -> pl.BlockSpec:
    """[b h t ...]."""
    return pl.BlockSpec((None, None, *x.shape[2:]), lambda row, head, _: (row, head, 0, 0))


def _row(x: Any) -> pl.BlockSpec:
    """[b ...]."""
    return pl.BlockSpec((None, *x.shape[1:]), lambda row, *_: (row, 0, 0))


def _whole(x: Any, **where: Any) -> pl.BlockSpec:
    return pl.BlockSpec(x.shape, lambda *_: (0,) * len(x.shape), **where)


def _triton_specs() -> _Kinds:
    def tokens(x: Any, which: int | None) -> pl.BlockSpec:
        _, t, *parts, _, k = x.shape
        if parts and which is not None:
            return pl.BlockSpec(
                (None, t, None, None, k), lambda row, head, _: (row, 0, which, head, 0)
            )
        if parts:
            return pl.BlockSpec((None, t, 3, None, k), lambda row, head, _: (row, 0, 0, head, 0))
        return pl.BlockSpec((None, t, None, k), lambda row, head, _: (row, 0, head, 0))

    return _Kinds(tokens, _row_of_head, _row, _whole, _whole)


def _mosaic_specs() -> _Kinds:
    from jax.experimental.pallas import tpu  # slow to import

    scalars = partial(_whole, memory_space=tpu.SMEM)
    return _Kinds(lambda x, _: _row_of_head(x), _row_of_head, _row, scalars, scalars)


def _parameters(lowering: Lowering, reads: tuple[Any, ...], shapes: tuple[Any, ...]) -> Any:
    """What the compiler is told."""
    if lowering.is_interpreted:
        return None
    if lowering.compiler == "triton":
        return triton_parameters(lowering, warps=4, stages=2)
    from jax.experimental.pallas import tpu

    room = 2 * sum(_bytes_of_row(x) for x in jax.tree.leaves((reads, shapes)))  # one ahead of time
    return tpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "arbitrary"),
        vmem_limit_bytes=min(room + _WORK, _MOST),
    )


def triton_parameters(lowering: Lowering, *, warps: int, stages: int) -> Any:
    """What Triton is told of a kernel; None where it is interpreted.

    Args:
      lowering: how it is compiled.
      warps: of 32 threads, that compute a tile.
      stages: of a loop that are under way at once.
    """
    if lowering.is_interpreted:
        return None
    from jax.experimental.pallas import triton  # slow to import

    return triton.CompilerParams(num_warps=warps, num_stages=stages)


def _bytes_of_row(x: Any) -> int:
    """In the memory of a TPU's core, whose last dimension is filled up to 128."""
    *_, t, k = (1, *x.shape)
    return -(-t // 8) * 8 * -(-k // 128) * 128 * x.dtype.itemsize
