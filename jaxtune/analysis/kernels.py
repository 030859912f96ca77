"""What a compiled program launches: kernels, the bytes that they move, their operations.

Read from the HLO text alone, so of programs for devices that are not here too. Each instruction of
the entry is a kernel, and of the body of a loop as many as it has turns; what only names or
places memory is none, nor is arithmetic of single numbers, which a TPU has a unit for and a GPU's
compiler puts into kernels. A kernel moves its operands and its results once: one that reads rows of
a large table is taken to read the table. What a TPU keeps beside its units is not moved. Of kernels
of our own, those of attention are counted without their products.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from jaxtune.analysis.hlo import Computation, Instruction, Program, Shape
from jaxtune.analysis.messages import KINDS, Collective, read_collectives

_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency", "domain"),
}
"""Opcodes that launch nothing."""

_FREE_TARGETS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast")


_OWN = ("__gpu$xla.gpu.triton", "tpu_custom_call")  # as Pallas has them


class Kernel(NamedTuple):
    """An instruction that is launched, once or in a loop.

    Attributes:
      name: of the instruction.
      kind: such as `fusion kLoop`, `__cublas$lt$matmul`, `copy` or `all-reduce`.
      num_bytes: of its operands and results.
      flops: of the products in it, two for each multiplication.
      dtype: of the operands of its products; empty where there are none.
      launches: how many.
    """

    name: str
    kind: str
    num_bytes: int
    flops: float
    dtype: str
    launches: int


class Launched(NamedTuple):
    """What a program does once it is called.

    Attributes:
      kernels: those that move and compute.
      sent: collectives among two devices or more, each as often as it is launched.
    """

    kernels: tuple[Kernel, ...]
    sent: tuple[Collective, ...]


def launched(program: Program) -> Launched:
    """What the entry of a program launches, what it calls among it."""
    kernels, sent = [], []
    for one, computation, count in _walk(program, program.entry, 1):
        messages = read_collectives([one], program.devices)
        if messages:
            sent += messages * count
        elif not _is_collective(one):
            kernels.append(_kernel(program, computation, one, count))
    return Launched(tuple(kernels), tuple(sent))


def _walk(
    program: Program, name: str, count: int
) -> Iterator[tuple[Instruction, Computation, int]]:
    """Instructions that launch something, the computation of each, and how often each does."""
    computation = program.computations[name]
    for one in computation.values():
        if one.opcode == "while":
            body = one.called("body")
            if body is not None:
                yield from _walk(program, body, count * _turns(one))
        elif one.opcode in ("call", "async-start"):
            inner = one.called("to_apply") or one.called("calls")
            if inner is not None:
                yield from _walk(program, inner, count)
        elif one.opcode == "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", one.text)
            names = re.findall(r"[\w.-]+", branches[1]) if branches else []
            names = names or [x for k in ("true", "false") if (x := one.called(f"{k}_computation"))]
            # The branch that launches most; which one is taken is not known.
            ways = [[*_walk(program, branch, count)] for branch in names]
            yield from max(ways, key=len, default=[])
        elif _launches(one):
            yield one, computation, count


def _launches(one: Instruction) -> bool:
    if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
        return False
    if one.opcode == "custom-call":
        return _target(one) not in _FREE_TARGETS
    is_one = one.opcode in ("fusion", "copy", "sort", "while")
    return is_one or any(shape.elements > 1 for shape in one.results)


def _is_collective(one: Instruction) -> bool:
    return one.opcode.removesuffix("-start") in KINDS


def _turns(one: Instruction) -> int:
    """Of a loop; 1 where the compiler does not know."""
    found = re.search(r'known_trip_count":\{"n":"?(\d+)', one.text)
    return int(found[1]) if found else 1


def _target(one: Instruction) -> str:
    found = re.search(r'custom_call_target="([^"]*)"', one.text)
    return found[1] if found else ""


def _kernel(program: Program, computation: Computation, one: Instruction, count: int) -> Kernel:
    # A kernel of our own that is given an array twice reads another part of it each time.
    names = dict.fromkeys(one.operands) if _target(one) in _OWN else one.operands
    reads = [computation[name] for name in names if name in computation]
    products = [*_products(program, computation, one)]
    return Kernel(
        one.name,
        _kind(one),
        _moved(one, [shape for read in reads for shape in read.results]),
        sum(flops for flops, _ in products),
        max(products)[1] if products else "",
        count,
    )


def _moved(one: Instruction, operands: list[Shape]) -> int:
    """Bytes that go to and from the large memory."""
    moved = [*one.results, *operands]
    if one.opcode == "copy-start":  # (to, from, what tells that it is done)
        moved = list(one.results[:2])
    elif one.opcode in ("slice", "dynamic-slice", "slice-start"):  # no more than is taken
        taken = one.results[one.opcode == "slice-start"]
        moved = [taken, *(taken._replace(on_chip=x.on_chip) for x in operands[:1])]
    elif _target(one).startswith("__cu"):  # room of a library's own is no result
        moved = [x for x in moved if x.dtype not in ("s8", "u8")]
    return sum(shape.bits for shape in moved if not shape.on_chip) // 8


def _kind(one: Instruction) -> str:
    if one.opcode == "custom-call":
        return _target(one)
    if one.opcode != "fusion":
        return one.opcode.removesuffix("-start")
    backend = re.search(r'"kind":"(__[\w$]+)"', one.text)
    kind = re.search(r"kind=(\w+)", one.text)
    return f"fusion {backend[1] if backend else kind[1] if kind else ''}"


def _products(
    program: Program, computation: Computation, one: Instruction
) -> Iterator[tuple[float, str]]:
    """(operations, dtype) of the products in an instruction and in what it calls."""
    if one.opcode == "fusion":
        inner = program.computations.get(one.called() or "", {})
        for part in inner.values():
            yield from _products(program, inner, part)
        return
    operands = [computation[name].results[0] for name in one.operands if name in computation]
    if len(operands) < 2:
        return
    left, right = operands[:2]
    if one.opcode == "dot":
        taken = math.prod(left.sizes[i] for i in one.numbers("lhs_contracting_dims"))
        yield 2.0 * one.results[0].elements * taken, left.dtype
    elif one.opcode == "convolution":
        yield _convolution(one, right.sizes), left.dtype
    elif _target(one) in _OWN and re.search(r"jit\(_product_", one.text):  # see fused_product
        yield 2.0 * left.elements * one.results[0].sizes[-1], left.dtype
    elif one.opcode == "custom-call" and re.search("matmul|gemm", _target(one)):
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.text)
        places = [int(n) for n in re.findall(r"\d+", found[1])] if found else []
        yield 2.0 * one.results[0].elements * math.prod(left.sizes[i] for i in places), left.dtype
    elif one.opcode == "custom-call" and "fmha" in _target(one):
        yield _attention(one, left.sizes, right.sizes), left.dtype


def _convolution(one: Instruction, kernel: tuple[int, ...]) -> float:
    """Of each output: as many products as the kernel has numbers for one output feature.

    A TPU's products with batches are convolutions over the batch, whose window is dilated so that
    one of its places counts.
    """
    labels = re.search(r"dim_labels=\w+_(\w+)->", one.text)
    place = labels[1].index("o") if labels else len(kernel) - 1
    window = re.search(r"lhs_dilate=([\dx]+)", one.text)
    dilated = math.prod(int(n) for n in window[1].split("x")) if window else 1
    each = math.prod(kernel) / max(kernel[place], 1)
    return 2.0 * one.results[0].elements * max(each / dilated, 1.0)


def _attention(one: Instruction, query: tuple[int, ...], key: tuple[int, ...]) -> float:
    """Of cuDNN's kernels: two products forward, five backward, of [b h q k] and [b h s k].

    The layout decides which axis is which; heads and features are the same of both, so what
    differs, or else the longest, is the length.
    """
    products = 5 if "Backward" in _target(one) else 2
    axis = next(
        (i for i, (n, m) in enumerate(zip(query, key, strict=False)) if n != m),
        max(range(1, len(query)), key=lambda i: query[i]),
    )
    return 2.0 * products * math.prod(query) * key[axis]
